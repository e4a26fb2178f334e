"""Units that never switch: their linear map is recovered, with the signs of the other neurons, on known layers."""

import os

import torch

from extraction import linear
from extraction.certification.gauges import free_directions, linear_directions
from extraction.fitting import fit, is_exact
from extraction.linear import between, has_open_signs, linear_slopes, moved_away, settled, with_linear_units
from extraction.network import Layers, fit_outputs
from extraction.symmetry import symmetries
from extraction.test.known_networks import answered, network, queries, session_of
from testing.test_case import TestCase

SLOPED = ("relu", "leaky_relu", "softplus", "gelu", "silu")


def teacher(act_fun, always=1, name="mlp_5_8_2", shift=200.0, seed=0):
    """A network whose last hidden layer has so many units at its end that never switch."""
    model = network(name, act_fun, seed)
    *below, hidden, outputs = model.layer_vectors()
    hidden[:, -1] += torch.randn(len(hidden), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 2
    if always:
        hidden[-always:, -1] += shift
    model.load_layer_vectors([*below, hidden, outputs])
    return model


def linear_map(layers, x):
    """The sum of the maps of the linear units of the last hidden layer, `[O, D - 1]`."""
    slopes, (hidden, outputs) = linear_slopes(layers, x)[-1], layers.vectors[-2:]
    return (outputs[:, :-1] * slopes) @ hidden[:, :-1]


def derivative(model, move, x):
    """The derivative of the outputs `[Q, O]` along a direction of the weights, `[P]`."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    parts = move.split([weight.numel() for weight in weights.values()])
    along = {name: part.view_as(weight) for part, (name, weight) in zip(parts, weights.items(), strict=True)}
    return torch.func.jvp(lambda values: torch.func.functional_call(model, values, x), (weights,), (along,))[1]


class TestLinearUnits(TestCase):
    def test_the_map_and_the_signs_are_those_of_the_teacher(self):
        x = queries(600, 5)
        turned = torch.tensor([1.0, -1, -1, 1, 1, -1, -1], dtype=torch.float64)[:, None]
        for act_fun in SLOPED:
            for always, outputs in ((1, 2), (2, 3)):
                with self.subTest(act_fun=act_fun, always=always):
                    model = teacher(act_fun, always, f"mlp_5_{7 + always}_{outputs}")
                    y, true = model(x).detach(), Layers.of(model)
                    layer = settled(turned * true.vectors[0][:7], act_fun, x, y, 0)
                    torch.testing.assert_close(layer[:7], true.vectors[0][:7])
                    self.assertEqual(len(layer), 7 + always)
                    found = true.replace(layer, fit_outputs(true.replace(layer).activations(x), y).T)
                    torch.testing.assert_close(linear_map(found, x), linear_map(true, x), rtol=1e-6, atol=1e-8)
                    torch.testing.assert_close(found.pre_activations(x), y, rtol=1e-9, atol=1e-9)

    def test_leaky_units_that_are_never_on_are_linear_and_dead_units_are_not(self):
        x = queries(300, 5)
        for act_fun, slope in (("leaky_relu", 0.01), ("relu", 0.0), ("gelu", 0.0)):
            slopes = linear_slopes(Layers.of(teacher(act_fun, shift=-200.0)), x)
            torch.testing.assert_close(slopes[0], torch.tensor([0.0] * 7 + [slope], dtype=torch.float64))
        for act_fun in ("tanh", "g", "sigmoid"):
            self.assertFalse(linear_slopes(Layers.of(teacher(act_fun)), x)[0].any())

    def test_nothing_is_added_where_no_linear_map_is_needed(self):
        x = queries(300, 5)
        for act_fun in (*SLOPED, "tanh"):
            model = teacher(act_fun, always=0)
            disturbed = model.layer_vectors()[0] + 1e-4 * queries(8, 6)
            self.assertIsNone(with_linear_units(disturbed, act_fun, x, model(x).detach(), 0))

    def test_a_layer_below_another_gets_its_signs_and_units_from_the_sums_that_students_show(self):
        for act_fun in ("relu", "gelu"):
            for always in (0, 1):
                model, x = teacher(act_fun, always, "mlp_5_8_4"), queries(400, 5)
                layer = model.layer_vectors()[0]
                sums = model(x).detach() + 1e-4 * queries(400, 4)
                self.assertIsNone(between(layer, act_fun, x, sums, 0) if not always else None)
                turned = torch.where(torch.arange(8) % 3 == 1, -1.0, 1.0).double()[:, None] * layer
                found = between(turned[: 8 - always], act_fun, x, sums, 0)
                torch.testing.assert_close(found[: 8 - always], layer[: 8 - always])
                self.assertEqual(len(found), 8)
                activations = Layers((found,), act_fun).activations(x)
                error = (torch.cat([activations, torch.ones(400, 1).double()], 1) @ fit_outputs(activations, sums) - sums).std()
                self.assertLess(float(error), 1e-3)

    def test_signs_of_many_neurons_are_found_by_improvement(self):
        model, x = teacher("relu", name="mlp_8_21_4"), queries(800, 8)
        true, y = model.layer_vectors()[0], model(x).detach()
        signs = torch.where(torch.arange(20) % 3 == 0, -1.0, 1.0).double()[:, None]
        torch.testing.assert_close(settled(signs * true[:20], "relu", x, y, 0)[:20], true[:20])

    def test_a_map_of_full_rank_is_carried_whatever_the_signs(self):
        model, x = teacher("relu", name="mlp_5_8_1"), queries(400, 5)
        layers, y = Layers.of(model), model(x).detach()
        layer = settled(-layers.vectors[0][:7], "relu", x, y, 0)
        found = layers.replace(layer, fit_outputs(layers.replace(layer).activations(x), y).T)
        torch.testing.assert_close(found.pre_activations(x), y, rtol=1e-9, atol=1e-9)
        self.assertEqual(found.sizes, [5, 8, 1])
        self.assertTrue(has_open_signs(*found.vectors, linear_slopes(found, x)[0], symmetries["relu"], 1e-6))

    def test_signs_are_open_where_the_map_makes_good_for_them(self):
        x = queries(300, 5)
        for name, act_fun in (("mlp_5_8_2", "leaky_relu"), ("mlp_5_18_2", "softplus")):
            layers = Layers.of(teacher(act_fun, name=name))
            hidden, outputs = layers.vectors
            slopes, symmetry = linear_slopes(layers, x)[0], symmetries[act_fun]
            self.assertFalse(has_open_signs(hidden, outputs, slopes, symmetry, 1e-6))
            hidden[0, :-1] = 2 * hidden[-1, :-1]  # then its own map and that of the unit behind have rank one
            self.assertTrue(has_open_signs(hidden, outputs, slopes, symmetry, 1e-6))

    def test_free_directions_leave_the_function(self):
        x = queries(200, 5)
        for act_fun, count in (("relu", 4), ("leaky_relu", 4), ("gelu", 6)):
            model = teacher(act_fun, always=2, shift=100.0)
            slopes, symmetry = linear_slopes(Layers.of(model), x), symmetries[act_fun]
            fixed, moves = free_directions(model, symmetry, slopes)
            self.assertEqual(len(linear_directions(model, symmetry, slopes)[1]), count)
            self.assertEqual(int(torch.linalg.matrix_rank(fixed @ moves.T)), len(moves))
            for move in moves:
                self.assertLess(float(derivative(model, move, x).abs().max()), 1e-11)

    def test_units_are_moved_away_without_a_change(self):
        x = queries(200, 5)
        for act_fun in ("relu", "leaky_relu"):
            for shift in (20.0, -20.0):
                layers = Layers.of(teacher(act_fun, shift=shift))
                moved = moved_away(layers, x)
                torch.testing.assert_close(moved.pre_activations(x), layers.pre_activations(x))
                self.assertEqual(torch.equal(moved.vectors[0], layers.vectors[0]), (act_fun, shift) == ("relu", -20.0))

    def test_a_network_with_units_that_never_switch_is_fitted_exactly(self):
        for act_fun in ("relu", "gelu"):
            with self.subTest(act_fun):
                model, x = teacher(act_fun, name="mlp_4_5_2"), queries(300)
                session = session_of("students_mlp(2)_4_16_2", answered(model, x, 300), self.root, act_fun)
                disturbed = model.layer_vectors()[0][:4] + 1e-3 * queries(4, 5)
                layers = Layers((disturbed, torch.zeros(2, 5).double()), act_fun)
                layers = linear.with_linear_map(layers, x, session.answers, 0)
                fitted = fit(session, layers, os.path.join(self.root, "extract_toy", "seed_1", "main", act_fun))
                self.assertTrue(is_exact(fitted.network, session.loaders.train))
                self.assertEqual(fitted.network.sizes, [4, 5, 2])
