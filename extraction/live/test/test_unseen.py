"""Relu neurons that few queries activate: found in closed form from the errors of a network that lacks them."""

import torch

from extraction.live import unseen
from extraction.live.box import Box
from extraction.network import Layers
from testing.test_case import TestCase


def lacking(depth: int, *sizes: int, act_fun: str = "relu") -> tuple[Layers, Layers, torch.Tensor]:
    """A network, the same without a neuron of hidden layer `depth` that 5 of 1,000 queries activate, and queries, some around these."""
    generator = torch.Generator().manual_seed(depth)
    vectors = [
        torch.randn(width, inputs + 1, generator=generator, dtype=torch.float64) for inputs, width in zip(sizes, sizes[1:], strict=False)
    ]
    x = torch.randn(1000, sizes[0], generator=generator, dtype=torch.float64)
    sums = Layers(tuple(vectors[:depth]), act_fun).pre_activations(x)[:, 0].sort().values
    vectors[depth - 1][0, -1] -= (sums[-6] + sums[-5]) / 2
    whole = Layers(tuple(vectors), act_fun)
    part = whole.without_neuron(depth, 0, vectors[depth][:, 1:])
    active = x[whole.replace(*vectors[:depth]).pre_activations(x)[:, 0] > 0]
    moves = 10 ** (-4 * torch.rand(120, 1, generator=generator, dtype=torch.float64))
    return whole, part, torch.cat([x, active.repeat(24, 1) + moves * (x[:120] - active.repeat(24, 1))])


class TestUnseen(TestCase):
    def test_a_neuron_of_any_layer_is_found_so_that_nearly_all_answers_are_right(self):
        for depth, sizes in ((1, (6, 8, 2)), (2, (6, 8, 5, 3)), (3, (8, 6, 6, 6, 4))):
            whole, part, x = lacking(depth, *sizes)
            found = unseen.with_unseen(part, x, whole.pre_activations(x), 1e-9)
            self.assertEqual(found.sizes, list(sizes))
            errors = (found.pre_activations(x) - whole.pre_activations(x)).abs().amax(1)
            self.assertGreater(float((errors < 1e-6).double().mean()), 0.99)
            mine, true = found.vectors[depth - 1][-1], whole.vectors[depth - 1][0]
            self.assertGreater(float(torch.nn.functional.cosine_similarity(mine, true, dim=0)), 0.95)

    def test_a_network_without_errors_and_one_of_another_activation_function_get_none(self):
        whole, part, x = lacking(1, 6, 8, 2)
        self.assertIsNone(unseen.with_unseen(whole, x, whole.pre_activations(x), 1e-9))
        smooth = Layers(part.vectors, "tanh")
        self.assertIsNone(unseen.with_unseen(smooth, x, whole.pre_activations(x), 1e-9))

    def test_errors_that_no_neuron_explains_get_none(self):
        whole, _, x = lacking(1, 6, 8, 2)
        noise = torch.randn(len(x), 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        noise[40:] = 0.0
        self.assertIsNone(unseen.with_unseen(whole, x, whole.pre_activations(x) + noise, 1e-9))

    def test_clouds_are_close_to_small_errors_and_inside_the_box(self):
        x = torch.rand(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        box = Box(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        sizes = torch.linspace(1, 2, 30, dtype=torch.float64)
        queries = unseen.clouds(x, sizes, box, torch.Generator().manual_seed(0))
        self.assertEqual(len(queries), 2 * (3 + unseen.SPARE))
        self.assertLess(float(torch.cdist(queries, x[[0, 3]]).amin(1).max()), 1e-3)
        self.assertTrue(bool(((queries >= 0) & (queries <= 1)).all()))
