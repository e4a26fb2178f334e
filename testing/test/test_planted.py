"""Planted networks are found again behind another order, other signs and other lengths, and errors are those that were made."""

import unittest

import torch

from extraction.network import Layers
from testing import planted


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


QUERIES = numbers(200, 3) * torch.tensor([1.0, 50.0, 1.0]) + torch.tensor([0.0, 0.0, 7.0])


class AlignedTest(unittest.TestCase):
    def test_order_and_signs_of_tanh(self):
        first, last = numbers(4, 4), numbers(2, 5, seed=1)
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
        order = [2, 0, 3, 1]
        found = Layers(((first * signs[:, None])[order], torch.cat([(last[:, :-1] * signs)[:, order], last[:, -1:]], 1)), "tanh")
        true = planted.aligned(Layers((first, last), "tanh"), found, QUERIES)
        self.assertEqual(planted.worst_error(true, found, QUERIES), 0)

    def test_the_next_bias_absorbs_the_sign_of_sigmoid(self):
        first, last = numbers(3, 4), numbers(1, 4, seed=1)
        opposite, other = first.clone(), last.clone()
        opposite[1], other[:, 1], other[:, -1] = -first[1], -last[:, 1], last[:, -1] + last[:, 1]
        found = Layers((opposite, other), "sigmoid")
        torch.testing.assert_close(found.pre_activations(QUERIES), Layers((first, last), "sigmoid").pre_activations(QUERIES))
        true = planted.aligned(Layers((first, last), "sigmoid"), found, QUERIES)
        self.assertLess(planted.worst_error(true, found, QUERIES), 1e-15)

    def test_lengths_and_order_of_two_layers_of_relu(self):
        first, second, last = numbers(4, 4), numbers(3, 5, seed=1), numbers(2, 4, seed=2)
        lengths = torch.tensor([2.0, 0.5, 3.0, 1.0], dtype=torch.float64)
        other = torch.cat([second[:, :-1] / lengths, second[:, -1:]], 1)
        order = [1, 2, 0]
        found = Layers((first * lengths[:, None], other[order], torch.cat([last[:, :-1][:, order], last[:, -1:]], 1)), "relu")
        true = planted.aligned(Layers((first, second, last), "relu"), found, QUERIES)
        self.assertLess(planted.worst_error(true, found, QUERIES), 1e-14)
        moved = found.replace(found.vectors[0], found.vectors[1] + 1e-3 * other[order], found.vectors[2])
        true = planted.aligned(Layers((first, second, last), "relu"), moved, QUERIES)
        self.assertAlmostEqual(planted.worst_error(true, moved, QUERIES), 1e-3, delta=1e-12)

    def test_an_error_is_a_share_of_the_largest_weight_in_units_of_the_column(self):
        first, last = numbers(3, 4), numbers(2, 4, seed=1)
        changed = first.clone()
        changed[1, 1] += 1e-4
        true, found = Layers((first, last), "tanh"), Layers((changed, last), "tanh")
        spread = QUERIES.std(0, correction=0)
        largest = max(float((first[:, :3].abs() * spread).max()), float((first[:, 3] + first[:, :3] @ QUERIES.mean(0)).abs().max()))
        expected = 1e-4 * max(float(spread[1]), abs(float(QUERIES[:, 1].mean()))) / largest
        self.assertAlmostEqual(planted.worst_error(true, found, QUERIES), expected, delta=1e-6 * expected)
        errors = [torch.full((3, 4), 1e-3), torch.full((2, 4), 1e-3)]
        self.assertAlmostEqual(float(planted.in_standard_errors(true, found, errors).abs().max()), 0.1, delta=1e-6)

    def test_an_error_of_a_weak_output_is_a_share_of_that_output(self):
        first, last = numbers(3, 4), numbers(2, 4, seed=1) * torch.tensor([[1.0], [1e-9]])
        changed = last.clone()
        changed[1, 0] += 1e-3 * last[1, :-1].abs().max()
        found = Layers((first, changed), "tanh")
        self.assertAlmostEqual(planted.worst_error(Layers((first, last), "tanh"), found, QUERIES), 1e-3, delta=1e-9)

    def test_an_error_of_a_constant_output_is_a_share_of_the_others(self):
        first, last = numbers(3, 4), numbers(2, 4, seed=1)
        last[1, :-1] = 0
        true, changed = Layers((first, last), "tanh"), last.clone()
        self.assertEqual(planted.worst_error(true, true, QUERIES), 0)
        changed[1, 0] = 1e-3 * last[0, :-1].abs().max()
        self.assertAlmostEqual(planted.worst_error(true, Layers((first, changed), "tanh"), QUERIES), 1e-3, delta=1e-9)

    def test_shared_neurons_are_counted(self):
        first, last = numbers(3, 4), numbers(2, 4, seed=1)
        fewer = Layers((-first[[2, 0]], last[:, [2, 0, 3]]), "tanh")
        self.assertEqual(planted.shared_neurons(Layers((first, last), "tanh"), fewer, QUERIES), 2)

    def test_opposites_of_relu_neurons_are_shared_up_to_sign(self):
        first, last = numbers(3, 4), numbers(2, 4, seed=1)
        turned = Layers((torch.cat([-2 * first[:1], first[2:]]), last[:, [0, 2, 3]]), "relu")
        shared = [planted.shared_neurons(Layers((first, last), "relu"), turned, QUERIES, up_to_sign) for up_to_sign in (False, True)]
        self.assertEqual(shared, [1, 2])


class VisibleTest(unittest.TestCase):
    def test_weights_along_directions_that_no_query_varies_in_are_left_out(self):
        queries = torch.cat([QUERIES, QUERIES[:, :1] + QUERIES[:, 1:2], torch.full((200, 1), 4.0)], 1)
        layers = Layers((numbers(3, 6), numbers(2, 4, seed=1)), "tanh")
        seen = planted.visible(layers, queries)
        torch.testing.assert_close(seen.pre_activations(queries), layers.pre_activations(queries))
        self.assertTrue((seen.vectors[0][:, 4] == 0).all())
        torch.testing.assert_close(planted.visible(seen, queries).vectors, seen.vectors)
        self.assertFalse(torch.allclose(seen.vectors[0], layers.vectors[0]))

    def test_other_inputs(self):
        layers = Layers((numbers(3, 4), numbers(2, 4, seed=1)), "gelu")
        mean, spread = numbers(3, seed=2), numbers(3, seed=3).abs()
        moved = planted.over_inputs(layers, mean, spread)
        torch.testing.assert_close(moved.pre_activations(mean + spread * QUERIES), layers.pre_activations(QUERIES))


class DrawTest(unittest.TestCase):
    def test_neurons_have_queries_on_either_side(self):
        x = numbers(300, 3)
        layers = planted.draw([3, 4, 2, 1], "relu", x, torch.Generator().manual_seed(1), length=1.5)
        self.assertEqual(layers.sizes, [3, 4, 2, 1])
        torch.testing.assert_close(layers.vectors[0][:, :-1].norm(dim=1), torch.full((4,), 1.5, dtype=torch.float64))
        for depth in (1, 2):
            active = (layers.replace(*layers.vectors[:depth]).pre_activations(x) > 0).double().mean(0)
            self.assertTrue(((active >= 0.1) & (active <= 0.9)).all())
        torch.testing.assert_close(planted.network_of(layers)(x), layers.pre_activations(x))


if __name__ == "__main__":
    unittest.main()
