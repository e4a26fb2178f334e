"""Layers of relu and leaky relu that are wider than those before, from the surfaces of their kinks."""

import unittest

import torch

from extraction.derivatives.differences import Scale
from extraction.derivatives.grounds import Ground
from extraction.derivatives.lines import Line, find_kinks
from extraction.derivatives.result import Lacking
from extraction.derivatives.surfaces import Features, follow, is_predicted
from extraction.derivatives.test import known
from extraction.derivatives.widening import WIDEST, _signed, _signed_by, recover
from extraction.network import Layers
from models.mlp import with_ones

SLOPE = 0.01


def leaky(values: torch.Tensor) -> torch.Tensor:
    """Leaky relu, written down here."""
    return values.clamp(min=0) + SLOPE * values.clamp(max=0)


def features_of(network: Layers) -> Features:
    """The first layer of a network with its signs."""
    return Features((network.vectors[0],), None, SLOPE)


def switching(sizes: tuple[int, ...], act_fun: str, seed: int) -> Layers:
    """A network whose neurons switch near the origin."""
    pairs = enumerate(zip(sizes, sizes[1:], strict=False))
    vectors = [known.normal(width, inputs + 1, seed=10 * seed + depth) for depth, (inputs, width) in pairs]
    return Layers(tuple(torch.cat([each[:, :-1], each[:, -1:] / 3], 1) for each in vectors), act_fun)


class TestFeatures(unittest.TestCase):
    def test_the_features_are_absolute_sums_of_the_last_layer_and_outputs_of_the_one_before(self):
        first, second = known.normal(3, 5), known.normal(4, 4, seed=1)
        points = known.normal(6, 4, seed=2)
        hidden = leaky(with_ones(points) @ first.T)
        values, jacobians, sums, _ = Features((first,), second, SLOPE).at(points)
        torch.testing.assert_close(values, torch.cat([(with_ones(hidden) @ second.T).abs(), hidden], 1))
        torch.testing.assert_close(sums[:, 3:], with_ones(hidden) @ second.T)
        moved = Features((first,), second, SLOPE).at(points + 1e-7 * torch.eye(4, dtype=points.dtype)[1])[0]
        torch.testing.assert_close(jacobians[:, :, 1], (moved - values) / 1e-7, rtol=1e-5, atol=1e-5)

    def test_the_places_of_a_line_are_where_sums_change_their_sign(self):
        features = Features((known.normal(3, 3),), known.normal(4, 4, seed=1), SLOPE)
        line = Line(known.normal(2, seed=2), known.normal(2, seed=3), -5.0, 5.0)
        places = features.places(line)
        steps = torch.linspace(-5, 5, 100_001, dtype=torch.float64)
        sums = features.at(line.at(steps))[2]
        expected = steps[:-1][(sums[1:] * sums[:-1] < 0).any(1)]
        torch.testing.assert_close(places[1:-1], expected, rtol=0, atol=2e-4)


class TestSurfaces(unittest.TestCase):
    def setUp(self):
        self.network = switching((3, 4, 5, 2), "leaky_relu", 2)
        self.asked = known.asked(self.network)
        self.ground = Ground(self.asked, Scale(1.0, torch.ones(2, dtype=torch.float64), torch.full((2,), 1e-16, dtype=torch.float64)))

    def test_a_kink_of_the_second_layer_shows_its_neuron_over_more_features_than_inputs(self):
        features, hidden = features_of(self.network), self.network.vectors[1]
        rows = torch.nn.functional.normalize(hidden, dim=1)
        kinks = find_kinks(self.asked, self.ground.line(), self.ground.scale)
        points = self.network.replace(*self.network.vectors[:2]).pre_activations(kinks.points).abs()
        number = int(points.amin(1).argmin())
        found = follow(self.ground, features, kinks, number)
        assert found is not None
        self.assertEqual(len(found), 1)
        self.assertGreater(float((rows @ found[0]).abs()[points[number].argmin()]), 1 - 1e-12)
        self.assertTrue(is_predicted(self.ground, features, found[0], 0.97))

    def test_a_plane_of_the_second_layer_is_no_neuron_of_the_first(self):
        kinks = find_kinks(self.asked, self.ground.line(), self.ground.scale)
        points = self.network.replace(*self.network.vectors[:2]).pre_activations(kinks.points).abs()
        found = follow(self.ground, Features(), kinks, int(points.amin(1).argmin()))
        assert found is not None
        self.assertFalse(is_predicted(self.ground, Features(), found[0], 0.97))


class TestSigns(unittest.TestCase):
    def setUp(self):
        self.signs = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
        self.first, self.second, second = known.normal(4, 4), known.normal(5, 5, seed=1), known.normal(5, 5, seed=1)[:, :-1]
        turned = self.first * self.signs[:, None]  # what kinks show
        self.unsigned = Features((), turned, 0.0)
        linear = (1 + SLOPE) / 2 * second @ self.first
        linear[:, -1] += self.second[:, -1]
        self.over_features = torch.cat([(1 - SLOPE) / 2 * second, linear], 1)

    def test_the_next_layer_shows_the_signs_and_the_slope(self):
        features, found = _signed(self.unsigned, self.over_features)
        torch.testing.assert_close(features.signed[0], self.first)
        torch.testing.assert_close(found, self.second)
        self.assertAlmostEqual(features.slope, SLOPE, places=12)

    def test_all_signs_are_tried_where_least_squares_do_not_show_them(self):
        features, found = _signed(self.unsigned, self.over_features[:1])
        torch.testing.assert_close(features.signed[0], self.first)
        torch.testing.assert_close(found, self.second[:1])

    def test_surfaces_that_leave_a_weight_open_show_the_signs(self):
        bases = []
        for place, row in enumerate(self.over_features):
            open_ = torch.zeros(8, dtype=torch.float64)  # |z| - z of a neuron whose plane is not crossed
            open_[place % 4], open_[4:] = 1.0, -self.unsigned.unsigned[place % 4]
            bases.append(torch.linalg.qr(torch.stack([row, open_], 1))[0].T)
        known_slope = Features((), self.unsigned.unsigned, SLOPE)
        torch.testing.assert_close(_signed_by(known_slope, bases).signed[0], self.first)


class TestRecover(known.RecoveryTestCase):
    def test_layers_that_widen_are_found(self):
        self.assert_found(switching((3, 4, 2, 2), "leaky_relu", 1), 1e-10)

    def test_a_large_network_is_left(self):
        network = known.layers((WIDEST + 2, WIDEST + 2, 1), "relu")
        scale = Scale(1.0, torch.ones(1, dtype=torch.float64), torch.full((1,), 1e-16, dtype=torch.float64))
        with self.assertRaisesRegex(Lacking, f"up to {WIDEST} dimensions"):
            recover(known.asked(network), scale)
