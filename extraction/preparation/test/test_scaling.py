"""The space in which students imitate a file of answers, against numpy and planted networks."""

import os
from unittest import mock

import numpy as np
import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.network import Layers
from extraction.preparation.coordinates import Coordinates, rare_columns
from extraction.preparation.scaling import Scaling
from extraction.test.known_networks import network, queries
from foundations import paths
from foundations.errors import ConfigError
from platforms.platform import get_platform
from testing.test_case import TestCase


def outputs_of(layers, x):
    """The outputs of a tanh network with one hidden layer, in numpy."""
    first, last = (np.asarray(vectors) for vectors in layers.vectors)
    return np.tanh(x @ first[:, :-1].T + first[:, -1]) @ last[:, :-1].T + last[:, -1]


def loaders_of(x, y, dtype=torch.float64):
    """Loaders for training and for test, nine rows in ten for training."""
    held_out = torch.arange(len(x)) % 10 == 9
    return Loaders(*(DataLoader(Dataset(x[rows], y[rows]), 32, 1, dtype) for rows in (~held_out, held_out)))


class TestCoordinates(TestCase):
    def assert_white(self, inside):
        inside = np.asarray(inside)
        np.testing.assert_allclose(inside.mean(0), 0, atol=1e-10)
        np.testing.assert_allclose(np.cov(inside.T, bias=True), np.eye(inside.shape[1]), atol=1e-7)

    def test_usual_columns_stay_as_they_are(self):
        x = queries(1000)
        for one in (Coordinates.of_inputs(x), Coordinates.of_outputs(2 + 3 * x)):
            self.assertTrue(one.is_identity)
            self.assertTrue(torch.equal(one.apply(x), x))

    def test_every_column_is_standardised_by_itself(self):
        scale, mean = torch.tensor([1, 1e3, 1e-3, 30.0]).double(), torch.tensor([100.0, 0, 5, -1e4]).double()
        x = queries(1000)
        values = x * scale + mean
        for one in (Coordinates.of_inputs(values), Coordinates.of_outputs(values)):
            inside = np.asarray(one.apply(values))
            np.testing.assert_allclose(inside, (x - x.mean(0)) / x.std(0, correction=0), atol=1e-7)
            self.assertEqual(one.constant, [])

    def test_correlated_inputs_are_whitened(self):
        x = queries(1000)
        values = 7 + x[:, :1] + 0.1 * x
        self.assert_white(Coordinates.of_inputs(values).apply(values))

    def test_directions_without_variation_are_left_out(self):
        values = queries(1000, 3) @ torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).double()
        one = Coordinates.of_inputs(values)
        self.assertEqual(one.inward.shape, (6, 3))
        self.assert_white(one.apply(values))
        folded = np.asarray(one.fold_inputs(queries(5, 4)))[:, :-1] * np.asarray(one.spread)
        standard = np.asarray((values - values.mean(0)) / one.spread)
        null = np.linalg.svd(standard)[2][3:]
        np.testing.assert_allclose(folded @ null.T, 0, atol=1e-12)

    def test_fewer_rows_than_columns_leave_directions_open(self):
        self.assertEqual(Coordinates.of_inputs(queries(5, 8)).inward.shape, (8, 4))

    def test_constant_columns_are_left_out_to_rounding(self):
        values = queries(100, 5).clone()
        values[:, 1], values[:, 3] = 0.1, 1e8 + 1e-9 * values[:, 3]
        for one in (Coordinates.of_inputs(values), Coordinates.of_outputs(values)):
            self.assertEqual((one.constant, one.inward.shape), ([1, 3], (5, 3)))

    def test_columns_that_vary_in_too_few_rows_are_left_out_with_these_rows(self):
        values = queries(100, 5).clone()
        values[:, [1, 3, 4]] = torch.tensor([0.1, 5.0, 0.0]).double()
        values[[3, 4], 1], values[[4, 5, 6], 3], values[4, 4] = 7.0, 8.0, 9.0
        rare, rows = rare_columns(values, 3)
        self.assertEqual(rare.tolist(), [0, 2, 0, 3, 1])  # without row 4 column 3 differs in two rows
        self.assertEqual((~rows).nonzero().flatten().tolist(), [3, 4, 5, 6])
        one = Coordinates.of_inputs(values, 3)
        self.assertEqual((one.too_rare, one.constant, float(one.mean[3])), ([1, 3, 4], [], 5.0))
        self.assertEqual(one.is_rare(values).nonzero().flatten().tolist(), [3, 4, 5, 6])
        np.testing.assert_allclose(one.mean[0], values[rows, 0].mean())
        self.assertEqual(rare_columns(values, 2)[0].tolist(), [0, 0, 0, 0, 1])
        self.assertEqual(Coordinates.of_inputs(values).too_rare, [])

    def test_at_most_half_of_the_rows_are_left_out(self):
        values = torch.eye(100).double()[:, :60]
        self.assertEqual(rare_columns(values, 2)[0].tolist(), [0] * 60)
        self.assertTrue(rare_columns(values, 2)[1].all())

    def test_columns_that_others_determine_are_named(self):
        values = queries(100, 4).clone()
        values[:, 3] = 2 * values[:, 0] - values[:, 1] + 3
        self.assertEqual(Coordinates.of_inputs(values).dependent, [0, 1, 3])

    def test_small_directions_of_outputs_are_amplified_but_rounding_is_not(self):
        x = queries(1000, 3)
        small = torch.stack([x[:, 0], x[:, 0] + 0.05 * x[:, 1]], 1)
        self.assert_white(Coordinates.of_outputs(small).apply(small))
        copies = torch.cat([small, 2 * x[:, :1] * (1 + 1e-9 * x[:, 2:])], 1)
        deviations = Coordinates.of_outputs(copies).apply(copies).std(0)
        self.assertEqual([round(deviation, 2) for deviation in deviations.tolist()], [1.0, 1.0, 0.0])

    def test_outputs_are_given_back(self):
        x = queries(1000, 3)
        values = torch.stack([1e6 * x[:, 0], 1e-6 * (x[:, 0] + 0.01 * x[:, 1]), torch.full((1000,), 0.3).double(), 1000 + x[:, 2]], 1)
        one = Coordinates.of_outputs(values)
        weights = one.fold_outputs(torch.eye(3, 4).double())
        back = np.asarray(one.apply(values)) @ np.asarray(weights[:, :-1]).T + np.asarray(weights[:, -1])
        np.testing.assert_allclose((back - values.numpy()) / np.asarray(one.spread), 0, atol=1e-10)
        self.assertEqual(weights[2].tolist(), [0, 0, 0, float(values[0, 2])])

    def test_a_choice_of_columns_is_one_of_coordinates_unless_they_are_mixed(self):
        x = queries(100, 3).clone()
        chosen = torch.tensor([True, True, False])
        x[:, 0] = 2.0
        self.assertEqual(Coordinates.of_inputs(x).selected(chosen).tolist(), [True, False])
        mixed = Coordinates.of_inputs(x[:, 1:2] + 0.01 * queries(100, 3))
        with self.assertRaisesRegex(ConfigError, "^--boruta: .*correlated"):
            mixed.selected(chosen)


class TestScaling(TestCase):
    def planted(self, mean, scale):
        """Inputs with these means and scales, and the scaling of them with badly scaled outputs of a planted network."""
        x, plain = queries(400), Layers.of(network("mlp_4_5_2"))
        first, last = plain.vectors
        first = torch.cat([first[:, :-1] / scale, (first[:, -1] - (first[:, :-1] / scale) @ mean)[:, None]], 1)
        units = torch.tensor([[1e4], [1e-4]]).double()
        last = last * units + torch.tensor([[0, 0, 0, 0, 0, 1.0]]).double() * 1000 * units
        truth, x = plain.replace(first, last), x * scale + mean
        return truth, x, torch.from_numpy(outputs_of(truth, x.numpy()))

    def test_a_planted_network_is_folded_back_to_1e_9_in_every_column(self):
        mean, scale = torch.tensor([0, 100.0, 0, -3e3]).double(), torch.tensor([1, 1e3, 1e-3, 30.0]).double()
        truth, x, y = self.planted(mean, scale)
        loaders = loaders_of(x, y)
        scaling = Scaling.of(loaders.train)
        m, s = x[loaders_rows(x)].mean(0), x[loaders_rows(x)].std(0, correction=0)
        n, t = y[loaders_rows(x)].mean(0), y[loaders_rows(x)].std(0, correction=0)
        first, last = truth.vectors
        inside_first = torch.cat([first[:, :-1] * s, (first[:, -1] + first[:, :-1] @ m)[:, None]], 1)
        inside_last = last / t[:, None] - torch.tensor([[0, 0, 0, 0, 0, 1.0]]).double() * (n / t)[:, None]
        found = scaling.fold(truth.replace(inside_first, inside_last))
        for ours, theirs in zip(found.vectors, truth.vectors, strict=True):
            size = theirs.abs().amax(0) if ours is found.vectors[0] else theirs.abs().amax(1, keepdim=True)
            self.assertLess(float(((ours - theirs).abs() / size).max()), 1e-9)

    def test_the_folded_network_answers_the_users_queries(self):
        x = queries(400, 3) @ torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).double() + 10
        y = torch.stack([x[:, 0], x[:, 0] + 0.01 * x[:, 1], torch.full((400,), 3.0).double()], 1)
        loaders = loaders_of(x, y)
        scaling = Scaling.of(loaders.train)
        inside = scaling.apply(loaders).test
        plain = Layers.of(network("mlp_3_7_2"))
        wanted = outputs_of(plain, inside.examples.numpy()) @ np.asarray(scaling.outputs.outward)
        wanted = wanted * np.asarray(scaling.outputs.spread) + np.asarray(scaling.outputs.mean)
        np.testing.assert_allclose(outputs_of(scaling.fold(plain), loaders.test.examples.numpy()), wanted, rtol=1e-9)
        self.assertEqual(scaling.open_weights(7), 21)
        self.assertEqual(len(scaling.remarks()), 2)
        self.assertRegex(scaling.remarks()[0], "^column 2 of y is constant")
        self.assertRegex(scaling.remarks()[1], "vary in 3 of the 6 directions of X")

    def test_directions_of_outputs_that_are_rounding_alone_are_left_out(self):
        y = queries(400, 2)
        near = y[:, 0] + 1e-3 * y[:, 1]
        mixed = torch.stack([y[:, 0], near, 2 * y[:, 0] - near], 1) + 3
        outputs = Coordinates.of_outputs(mixed)
        self.assertEqual(outputs.inward.shape, (3, 2))
        torch.testing.assert_close(outputs.undo(outputs.apply(mixed)), mixed, rtol=0, atol=1e-12)
        rounded = torch.stack([y[:, 0], y[:, 1], y[:, 0] - y[:, 1]], 1).round(decimals=4)
        self.assertEqual(Coordinates.of_outputs(rounded).inward.shape, (3, 2))

    def test_constant_columns_are_named_in_one_line(self):
        x = queries(100, 30).clone()
        x[:, [0, 2, 29]] = 1.0
        self.assertRegex(Scaling.of(loaders_of(x, x[:, [1]]).train).remarks()[0], "^columns 0, 2 and 29 of X are constant")
        x[:, :25] = 1.0
        self.assertRegex(Scaling.of(loaders_of(x, x[:, [26]]).train).remarks()[0], r"^26 columns \(0, .*18, 19?.*, \.\.\.\) of X are")

    def test_rare_columns_are_named_and_their_rows_left_out_for_test_too(self):
        x = queries(100).clone()
        x[:, 3] = 5.0
        x[[8, 19], 3] = 6.0
        loaders = loaders_of(x, x[:, :2])
        self.assertEqual(Coordinates.of_inputs(loaders.train.examples, least=1).too_rare, [])
        scaling = Scaling.of(loaders.train, widths=[8])
        self.assertRegex(scaling.remarks()[1], "^column 3 of X varies in 1 query only, which are left out with the weights from it")
        self.assertRegex(scaling.remarks()[0], "students of 6 neurons are trained")
        self.assertEqual((scaling.width, Scaling.from_state(scaling.state()).width), (6, 6))
        self.assertEqual([len(loader.dataset) for loader in scaling.without_rare_rows(loaders)], [89, 9])
        again = Scaling.from_state({name: value for name, value in scaling.state().items() if not name.endswith("rare")})
        self.assertEqual(again.inputs.constant, [3])

    def test_large_students_of_scarce_answers_are_as_wide_as_1_7_numbers_for_each_unknown_allow(self):
        x = queries(100)
        train = loaders_of(x, x[:, :2]).train
        with mock.patch("extraction.preparation.scaling.LARGE", 0):
            asked, fewer = (Scaling.of(train, widths=[width]) for width in (12, 40))
        self.assertEqual(fewer.width, int(len(train.dataset) * 2 / 1.7 / (len(x[0]) + 1 + 2)))
        self.assertEqual(asked.width if asked else 0, 0)

    def test_students_get_the_transformed_rows_in_their_number_format(self):
        x = queries(100) + 1e6
        loaders = loaders_of(x, 1e3 * x[:, :2], torch.float32)
        inside = Scaling.of(loaders.train).apply(loaders)
        rows = x.numpy()[np.arange(100) % 10 != 9]
        self.assertEqual((inside.train.examples.dtype, inside.train.batch_size, inside.train.seed), (torch.float32, 32, 1))
        np.testing.assert_allclose(inside.train.examples, (rows - rows.mean(0)) / rows.std(0), atol=1e-5)

    def test_rows_for_test_that_vary_where_no_row_for_training_does_are_left_out(self):
        x = queries(100).clone()
        x[:, 3] = 5.0
        x[19, 3] = 6.0
        loaders = loaders_of(x, x[:, :2])
        inside = Scaling.of(loaders.train).apply(loaders)
        self.assertEqual([len(loader.dataset) for loader in inside], [90, 9])

    def test_the_scaling_of_a_run_is_kept_and_older_runs_have_none(self):
        location, older = (os.path.join(self.root, name) for name in ("run", "older"))
        one, other = loaders_of(queries() + 7, queries()).train, loaders_of(queries() + 8, queries()).train
        kept = Scaling.settled(one, location)
        again = Scaling.settled(other, location)
        self.assertTrue(all(torch.equal(value, again.state()[name]) for name, value in kept.state().items()))
        get_platform().write(paths.hparams_dict(older), "{}")
        self.assertIsNone(Scaling.settled(one, older))
        self.assertIsNone(Scaling.settled(loaders_of(queries(1000), queries(1000)).train, os.path.join(self.root, "usual")))
        self.assertFalse(os.path.exists(os.path.join(self.root, "usual")))


def loaders_rows(x):
    """The rows for training."""
    return torch.arange(len(x)) % 10 != 9
