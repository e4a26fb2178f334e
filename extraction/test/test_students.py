"""Students above recovered layers, on known networks."""

import dataclasses
import os
import unittest
from unittest import mock

import numpy as np
import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.network import Layers
from extraction.preparation.coordinates import Coordinates
from extraction.preparation.scaling import Scaling
from extraction.session import RIDGE
from extraction.students import SMALL_STEPS, Standardisation, imitate_above, sharpen, students_training, train_students, train_together
from extraction.test.known_networks import answered, network, queries, session_of
from extraction.test.test_recovery import random
from foundations.training_hparams import TrainingHparams
from models.mlp import with_ones
from testing.test_case import TestCase
from training.evaluation import evaluate
from training.metric_logger import MetricLogger
from training.plan import StandardPlan


class TestStandardisation(unittest.TestCase):
    def test_vectors_over_standardised_inputs_give_the_same_pre_activations(self):
        inputs, incoming = 3 * random(50, 4, seed=1) + 7, random(6, 5, seed=2)
        scale = Standardisation.of(inputs)
        standard = scale.apply(inputs)
        np.testing.assert_allclose(standard.mean(0), np.zeros(4), atol=1e-12)
        np.testing.assert_allclose(standard.std(0), np.ones(4))
        torch.testing.assert_close(with_ones(inputs) @ scale.undo(incoming).T, with_ones(standard) @ incoming.T)
        stack = incoming.expand(3, -1, -1)
        torch.testing.assert_close(scale.redo(scale.undo(stack)), stack)

    def test_a_constant_column_keeps_its_scale(self):
        inputs = random(50, 2, seed=1)
        inputs[:, 1] = 4.0
        scale = Standardisation.of(inputs)
        self.assertEqual((scale.mean[1].item(), scale.spread[1].item()), (4.0, 1.0))


class TestSteps(TestCase):
    def steps(self, students: str, from_file: bool = True, **changes) -> str:
        """How long students of the answers of a file, or of a network, are trained."""
        _, sizes = students.split(")_")
        session = session_of(students, answered(network(f"mlp_{sizes}"), queries(9, int(sizes.split("_")[0])), 9), self.root)
        session = dataclasses.replace(session, rows=mock.sentinel.rows if from_file else None)
        session.desc.training_hparams = dataclasses.replace(session.desc.training_hparams, **changes)
        return students_training(session).training_steps

    def test_small_deep_students_of_a_file_are_trained_for_a_shorter_time_by_default(self):
        self.assertEqual(self.steps("students_mlp(2)_6_60_9_2"), SMALL_STEPS)
        self.assertEqual(self.steps("students_mlp(2)_6_60_9_2", from_file=False), "20000it")
        self.assertEqual(self.steps("students_mlp(2)_64_36_36_2"), "20000it")
        self.assertEqual(self.steps("students_mlp(2)_6_60_2"), "6000it")
        self.assertEqual(self.steps("students_mlp(2)_6_60_9_2", training_steps="30000it"), "30000it")
        self.assertEqual(self.steps("students_mlp(2)_6_60_9_2", lr=0.01), "20000it")


class TestScarce(TestCase):
    """Students of few answers are narrower than asked for, and Levenberg-Marquardt trains them."""

    def trained(self, name: str, **changes):
        """The losses of narrow students of a teacher of three neurons, and the number of steps before Levenberg-Marquardt."""
        loaders = answered(network("mlp_4_3_2"), queries(60), 60)
        session = session_of("students_mlp(2)_4_12_2", loaders, os.path.join(self.root, name, "main"))
        same = Coordinates.identity
        session = dataclasses.replace(session, scaling=Scaling(same(session.queries), same(session.answers), 4))
        session.desc.training_hparams = dataclasses.replace(session.desc.training_hparams, **changes)
        students = train_students(session, session.students_batches(loaders), StandardPlan(verbose=False))
        self.assertEqual(students.sizes, [4, 4, 2])
        steps = MetricLogger.load(session.students_location).last_iteration
        return evaluate(students, loaders.train)["individual_losses"], steps

    def test_levenberg_marquardt_takes_the_place_of_the_default_training(self):
        losses, steps = self.trained("default")
        self.assertEqual(steps, 1)
        self.assertLess(min(losses), 1e-4)

    def test_it_follows_any_other_training(self):
        losses, steps = self.trained("other", training_steps="3it")
        self.assertEqual(steps, 3)
        self.assertLess(min(losses), 1e-4)

    def test_weights_are_penalised_only_then(self):
        loaders = answered(network("mlp_4_3_2"), queries(60), 60)
        session = session_of("students_mlp(2)_4_12_2", loaders, self.root)
        hparams = TrainingHparams("levenberg_marquardt", 1.0, "1it")
        self.assertIsNone(session.penalised(hparams).weight_decay)
        same = Coordinates.identity
        session = dataclasses.replace(session, scaling=Scaling(same(session.queries), same(session.answers), 4))
        self.assertEqual(session.penalised(hparams).weight_decay, RIDGE)
        self.assertIsNone(session.penalised(TrainingHparams("adam", 0.1, "1it")).weight_decay)
        fewer = dataclasses.replace(session, loaders=answered(network("mlp_4_3_2"), queries(59), 59))  # 118 numbers for 30 unknowns
        self.assertFalse(fewer.is_scarce)

    def test_large_students_with_one_hidden_layer_are_penalised_where_answers_are_scarce(self):
        with mock.patch("extraction.session.LARGE", 80):
            for name, count, penalised in (
                ("4_12_2", 160, True),
                ("4_12_2", 200, False),
                ("4_11_2", 150, False),
                ("4_12_12_2", 160, False),
            ):
                session = session_of(f"students_mlp(2)_{name}", answered(network("mlp_4_3_2"), queries(count), count), self.root)
                self.assertEqual(session.is_penalised, penalised)


class TestAbove(TestCase):
    def nearly_recovered(self, noise: float):
        """A layer of a known network, the layer with noise, students above the noisy layer, and the session."""
        teacher = network("mlp_4_5_4_3")
        session = session_of("students_mlp(2)_4_9_9_3", answered(teacher, queries(1500), 256), self.root)
        session.desc.training_hparams = TrainingHparams("adam", 0.02, "1500it", lr_decay="cosine")
        true = teacher.layer_vectors()[0]
        near = Layers((true + noise * queries(5, 5),), "tanh")
        above = imitate_above(session, near, network("students_mlp(2)_4_9_9_3"), os.path.join(self.root, "layer_2"))
        return true, near, above, session

    def test_training_students_above_makes_recovered_layers_more_exact(self):
        true, near, above, session = self.nearly_recovered(1e-2)
        session.desc.training_hparams.training_steps = "15000it"  # the function trains for a tenth of this
        before = above.losses
        layers, better = train_together(session, near, above)
        self.assertLess((layers.vectors[0] - true).norm().item(), 0.8 * (near.vectors[0] - true).norm().item())
        self.assertLess(max(better.losses), min(before))
        self.assertEqual(better.losses, evaluate(better.students, better.loaders.train)["individual_losses"])

    def test_a_student_above_sharpens_recovered_layers(self):
        true, near, above, session = self.nearly_recovered(1e-3)
        layers, better = sharpen(session, near, above)
        self.assertLess((layers.vectors[0] - true).norm().item(), 0.1 * (near.vectors[0] - true).norm().item())
        self.assertLess(max(better.losses), min(above.losses))

    def test_the_weights_of_shallower_students_do_not_depend_on_the_folder(self):
        loaders = Loaders(*(DataLoader(Dataset(queries(40), queries(40, 2)), 40, seed=7, dtype=torch.float64) for _ in range(2)))
        session = session_of("students_mlp(3)_4_5_6_2", loaders, self.root)
        session.desc.training_hparams = TrainingHparams("adam", 0.01, "3it")
        found = []
        for folder in ("here", "elsewhere"):
            location = os.path.join(self.root, folder)
            above = imitate_above(session, Layers((queries(5, 5),), "tanh"), network("students_mlp(3)_4_5_6_2"), location)
            found.append(above.students)
        self.assertEqual(found[0].sizes, [5, 6, 2])
        for here, elsewhere in zip(found[0].parameters(), found[1].parameters(), strict=True):
            self.assertTrue(torch.equal(here, elsewhere))
