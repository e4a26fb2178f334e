"""Global magnitude pruning against sorting."""

import math

from pruning.test.test_base import SIZES, STUDENTS, joined, lowest, prune, toy_convolution
from testing.test_case import TestCase
from training.test.test_train import network


class TestSparseGlobal(TestCase):
    def test_the_smallest_weights_of_all_layers_are_removed(self):
        for model in (network(SIZES), toy_convolution(), network(STUDENTS).select(1)):
            for fraction in (0.05, 0.5, 0.97):
                mask = prune("sparse_global", model, fraction=fraction)
                magnitudes = joined(model.state_dict(), list(mask)).abs().tolist()
                gone = {place for place, kept in enumerate(joined(mask).tolist()) if not kept}
                self.assertEqual(gone, lowest(magnitudes, math.ceil(fraction * len(magnitudes)) + 1))

    def test_a_second_step_scores_the_remaining_weights_only(self):
        model = network(SIZES)
        first = prune("sparse_global", model, fraction=0.5)
        for name in first:
            model.state_dict()[name][~first[name]] = 100.0
        second = prune("sparse_global", model, first, 0.5)
        gone = {place for place, kept in enumerate(joined(second).tolist()) if not kept}
        self.assertEqual(gone, lowest(joined(network(SIZES).state_dict(), list(first)).abs().tolist(), 83 + 42))  # of 164, then of 81
