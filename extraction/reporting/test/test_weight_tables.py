"""The weights as tables of numbers, and as pictures."""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np
import torch

from extraction.certification.residuals import SPREADS, Points
from extraction.certification.uncertainty import FILE, save
from extraction.report import Columns
from extraction.reporting import weight_plots, weight_tables
from extraction.reporting.test.test_verdict import graded
from extraction.test.known_networks import network
from foundations import paths
from foundations.errors import ConfigError
from foundations.step import Step
from platforms.platform import get_platform
from testing.test_case import TestCase


class TestNumbers(TestCase):
    def test_a_column_has_the_digits_that_its_smallest_error_leaves_and_one_more(self):
        values = np.array([0.123456789, -1.5])
        cases = [
            (values, None, ["0.12346", "-1.50000"]),
            (values, [2e-4, 0.1], ["0.12346", "-1.50000"]),
            (values, [0.03, 0.02], ["0.123", "-1.500"]),
            (values, [1e-12, 1e-12], ["0.1234568", "-1.5000000"]),
            (values, [math.inf, 0.02], ["0.123", "-1.500"]),
            (1000 * values, None, ["123.46", "-1500.00"]),
            (1e-12 * values, None, ["1.23457e-13", "-1.50000e-12"]),
            (np.zeros(2), [1e-3, 1e-3], ["0.0000", "0.0000"]),
        ]
        for column, errors, texts in cases:
            self.assertEqual(weight_tables.shown(column, None if errors is None else np.array(errors)), texts)


class TestTables(TestCase):
    def setUp(self):
        super().setUp()
        self.model = network("mlp_3_2_2")
        self.folder = paths.reconstructed_model(self.root)
        self.model.save(self.folder, Step.from_epoch(1, 0, 1))
        self.errors = [torch.full_like(vectors, 1e-3) for vectors in self.model.layer_vectors()]
        self.errors[0][1, 2] = math.inf

    def tables(self, report):
        return weight_tables.of(self.root, report)

    def test_every_layer_has_its_weights_with_their_errors(self):
        save(self.model, self.errors, self.folder)
        hidden, output = self.tables(graded())
        self.assertEqual((hidden.title, output.title), ("Hidden layer 1", "Output layer"))
        self.assertEqual(hidden.inputs, ["input 0", "input 1", "input 2", "bias"])
        self.assertEqual([name for name, _ in output.rows], ["output 0", "output 1"])
        vectors = self.model.layer_vectors()[0].detach().numpy()
        for (_, cells), vector in zip(hidden.rows, vectors, strict=True):
            np.testing.assert_allclose([float(cell.value) for cell in cells], vector, atol=1e-4)
            np.testing.assert_allclose([cell.share for cell in cells], vector / np.abs(vectors).max(), rtol=1e-12)
        self.assertEqual([cell.is_open for cell in hidden.rows[1][1]], [False, False, True, False])
        self.assertEqual({cell.error for _, cells in output.rows for cell in cells}, {"± 0.001"})

    def test_inputs_that_no_query_tells_are_marked_and_columns_have_their_names(self):
        report = dataclasses.replace(graded(), columns=Columns(["age", "bmi", "sex"], ["low", "high"], [1]))
        hidden, output = self.tables(report)
        self.assertEqual((hidden.inputs, [name for name, _ in output.rows]), (["age", "bmi", "sex", "bias"], ["low", "high"]))
        self.assertEqual([cell.is_open for _, cells in hidden.rows for cell in cells], 2 * [False, True, False, False])
        self.assertEqual({cell.error for _, cells in hidden.rows for cell in cells}, {""})

    def test_a_network_that_misses_answers_has_no_errors_of_weights(self):
        save(self.model, self.errors, self.folder)
        hidden, _ = self.tables(graded(structure=40.0))
        self.assertEqual({(cell.error, cell.is_open) for _, cells in hidden.rows for cell in cells}, {("", False)})

    def test_the_error_names_a_damaged_file(self):
        get_platform().write(os.path.join(self.folder, FILE), b"no arrays")
        with self.assertRaisesRegex(ConfigError, "standard_errors.npz is damaged"):
            self.tables(graded())

    def test_large_layers_and_missing_weights_have_no_table(self):
        other = os.path.join(self.root, "other")
        self.assertEqual(weight_tables.of(other, graded()), [])
        network("mlp_30_40_2").save(paths.reconstructed_model(other), Step.from_epoch(1, 0, 1))
        self.assertEqual(weight_tables.of(other, graded()), [])


class TestPictures(TestCase):
    def test_all_neurons_have_one_scale_with_bars_for_two_standard_errors(self):
        vectors = np.array([[1.0, -2.0, 0.5], [0.1, 0.2, -0.1]])
        errors = np.full((2, 3), 0.25)
        errors[1, 0] = math.inf
        neurons = weight_plots.Neurons(weight_plots.Names("Hidden layer 1"), vectors, ~np.isfinite(errors), errors=errors)
        axes = weight_plots._bars(neurons).axes
        limits = {axis.get_ylim() for axis in axes}
        self.assertEqual(len(limits), 1)
        segments = axes[0].containers[1].lines[2][0].get_segments()
        np.testing.assert_allclose([segment[:, 1] for segment in segments], [[0.5, 1.5], [-2.5, -1.5], [0.0, 1.0]])
        self.assertEqual(len(axes[1].containers[1].lines[2][0].get_segments()), 2)

    def test_columns_of_very_different_scales_have_a_logarithmic_scale(self):
        neurons = weight_plots.Neurons(weight_plots.Names("Hidden layer 1"), np.array([[1e3, 1e-3, 1.0]]), np.zeros((1, 3), dtype=bool))
        self.assertEqual(weight_plots._bars(neurons).axes[0].get_yscale(), "symlog")

    def test_each_kind_of_layer_is_drawn(self):
        for name, (rows, inputs) in {"images": (3, 64), "bars": (3, 5), "matrix": (80, 30)}.items():
            vectors = np.ones((rows, inputs + 1))
            neurons = weight_plots.Neurons(
                weight_plots.Names("Hidden layer 1", is_input=True), vectors, vectors < 0, partners=vectors[:2], errors=0.1 * vectors
            )
            path = os.path.join(self.root, f"{name}.png")
            weight_plots.weights(neurons, path)
            self.assertGreater(os.path.getsize(path), 5000)

    def test_errors_are_drawn_and_summarised_in_their_unit(self):
        answers = torch.linspace(0, 1, 20, dtype=torch.float64)[:, None].repeat(1, 2)
        errors = torch.ones(20, 2, dtype=torch.float64)
        errors[0] = -7
        points = Points(SPREADS, torch.tensor([0.5, 2.0]), (answers, answers[:10]), (errors, errors[1:11]))
        first, second = points.summary.outputs
        self.assertEqual(
            (first.unit, second.unit, first.training_largest, first.held_out, first.held_out_largest), (0.5, 2.0, 7.0, 1.0, 1.0)
        )
        self.assertAlmostEqual(first.training, math.sqrt((19 + 49) / 20))
        path = os.path.join(self.root, "residuals.png")
        weight_plots.residuals(points, ["low", "high"], path)
        self.assertGreater(os.path.getsize(path), 5000)
