"""Levenberg-Marquardt without a run: where it ends."""

import torch

from extraction.descent import descend, has_settled, has_stalled
from extraction.test.known_networks import network, queries
from testing.test_case import TestCase


class TestDescent(TestCase):
    def test_the_solution_next_to_the_start_is_found(self):
        teacher, model = network("mlp_4_3_2"), network("mlp_4_3_2")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)
            answers = teacher(queries())
        descend(model, queries(), answers, 20)
        torch.testing.assert_close(model.state_dict(), teacher.state_dict(), atol=1e-12, rtol=0)

    def test_a_rule_ends_it_after_the_step_that_meets_it(self):
        seen = []
        descend(
            network("mlp_4_3_2"), queries(), torch.randn(200, 2).double(), 9, lambda losses: seen.append(list(losses)) or len(losses) == 3
        )
        self.assertEqual([len(losses) for losses in seen], [1, 2, 3])
        self.assertEqual(seen[-1], sorted(seen[-1], reverse=True))

    def test_losses_that_do_not_halve_have_stalled(self):
        rule = has_stalled(2)
        self.assertEqual([rule(losses) for losses in ([4.0, 3], [4.0, 3, 2.1], [4.0, 3, 1.9], [9.0, 4, 3, 2])], [False, True, False, False])

    def test_losses_that_hardly_differ_have_settled(self):
        rule = has_settled(3, 0.1)
        self.assertEqual([rule(losses) for losses in ([1.0, 1], [9, 1, 1, 1.05], [9, 1.2, 1, 1])], [False, True, False])
