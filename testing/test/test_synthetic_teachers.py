"""The teachers of the synthetic suite are what its description says."""

import os
from unittest import mock

import torch

from datasets.teachers import run_folders
from foundations.training_hparams import TrainingHparams
from platforms.platform import get_platform
from testing.benchmarks import synthetic_teachers
from testing.benchmarks.synthetic_teachers import numbers, spread_apart, synthetic_teacher, table
from testing.test_case import TestCase


def make(inputs: int, width: int, seed: int) -> run_folders.TrainedNetwork:
    return run_folders.find(synthetic_teacher(inputs, width, seed), seed)


class TeacherTest(TestCase):
    def test_input_vectors_are_of_unit_norm_and_output_weights_bounded_away_from_zero(self):
        for inputs, width in ((2, 4), (8, 8)):
            teacher = make(inputs, width, seed=3)
            self.assertEqual((teacher.inputs, teacher.outputs, teacher.model_hparams.act_fun), (inputs, 1, "g"))
            hidden, output = teacher.load().fc_layers[0], teacher.load().fc
            torch.testing.assert_close(hidden.weight.data.norm(dim=1), torch.ones(width, dtype=torch.float64), rtol=1e-6, atol=0)
            self.assertLessEqual(hidden.bias.abs().max().item(), 1.0)
            self.assertTrue(((output.weight.abs() >= 0.5) & (output.weight.abs() <= 1.5)).all())

    def test_a_seed_makes_the_same_teacher_again_and_another_one_another(self):
        weights = [make(2, 4, seed).load().fc_layers[0].weight for seed in (0, 0, 1)]
        self.assertTrue(torch.equal(weights[0], weights[1]))
        self.assertFalse(torch.allclose(weights[0], weights[2]))

    def test_vectors_in_a_plane_spread_to_equal_angles(self):
        vectors = spread_apart(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)))
        angles = torch.atan2(vectors[:, 1], vectors[:, 0]).sort().values
        torch.testing.assert_close(angles.diff(), torch.full((4,), 2 * torch.pi / 5), rtol=0.02, atol=0)

    def test_one_teacher_can_be_run_alone(self):
        short = TrainingHparams("adam", 0.02, "300it", lr_decay="cosine")
        with mock.patch.object(synthetic_teachers, "TRAINING", short), mock.patch.object(synthetic_teachers, "STUDENTS", 4):
            row = synthetic_teachers.identify((2, 2, 4))
        self.assertEqual((row["inputs"], row["width"], row["seed"]), (2, 2, 4))
        self.assertIn(row["identified"], (True, False))
        self.assertGreater(row["seconds"], 0)
        self.assertEqual(get_platform().listdir(os.path.join(self.root, "datasets")), [])


class TableTest(TestCase):
    def test_numbers_are_lists_and_ranges(self):
        self.assertEqual(numbers("2,4,8"), [2, 4, 8])
        self.assertEqual(numbers("0-3,7"), [0, 1, 2, 3, 7])

    def test_the_table_counts_by_inputs_and_width(self):
        rows = [{"inputs": i, "width": w, "identified": found} for i, w, found in ((2, 4, True), (2, 4, False), (8, 2, True), (8, 4, True))]
        lines = [line.split() for line in table(rows).splitlines()[1:]]
        self.assertEqual(lines, [["2", "0", "of", "0", "1", "of", "2"], ["8", "1", "of", "1", "1", "of", "1"]])
