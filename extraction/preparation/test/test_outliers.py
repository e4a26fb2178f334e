"""Rows that contradict all others are left out; rows that a wrong network misses never are."""

import dataclasses
import os
import unittest

import numpy as np
import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.fitting import Fit
from extraction.network import Layers
from extraction.preparation.outliers import distance_to_hull, judge, trimmed
from extraction.preparation.rows import Rows, named
from extraction.test.known_networks import network, queries, session_of, without_pictures
from testing.test_case import TestCase


def rows_of(x, y):
    """The rows of a file, every tenth of which is held out."""
    numbers = torch.arange(len(x))
    parts = numbers[numbers % 10 != 9], numbers[numbers % 10 == 9]
    return Rows(Loaders(*(DataLoader(Dataset(x[part], y[part]), 64, 1, torch.float64) for part in parts)), parts)


class TestOutliers(TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(without_pictures())

    def session(self, y, act_fun="tanh", aside=()):
        rows = rows_of(self.x, y).without(aside)
        session = session_of("students_mlp(2)_4_12_2", rows.kept, self.root, act_fun)
        return dataclasses.replace(session, rows=rows)

    def answers(self, act_fun="tanh", change=lambda layers: None):
        """Queries, the answers of a teacher, and a network that is near it."""
        self.x = queries(600)
        teacher = network("mlp_4_5_2", act_fun)
        vectors = [each.clone() for each in teacher.layer_vectors()]
        change(vectors)
        teacher.load_layer_vectors(vectors)
        self.teacher = Layers.of(teacher)
        return teacher(self.x).detach()

    def start(self, session, layers=None):
        """A network near the teacher, or with other layers."""
        layers = layers or self.teacher.replace(*(vectors * 1.01 for vectors in self.teacher.vectors))
        built, hparams = layers.to_network(session.students_hparams)
        return Fit(hparams, built, built, self.root)

    def assert_found(self, y, wrong, **options):
        session = self.session(y, **options)
        cleaned = trimmed(session, self.start(session), os.path.join(self.root, "rows"))
        session, fitted = cleaned or (session, self.start(session))
        judgement = judge(session, fitted.network)
        self.assertEqual((sorted(judgement.left_out), judgement.doubtful), (wrong, ()))
        return fitted.network

    def test_the_network_comes_from_the_other_rows(self):
        for act_fun in ("tanh", "relu"):
            y = self.answers(act_fun)
            inner = torch.argsort(self.x.norm(dim=1))[:60].tolist()
            wrong = sorted([row for row in inner if row % 10 != 9][:4] + [row for row in inner if row % 10 == 9][:1])
            y[wrong] += torch.linspace(0.2, 3, 5).double()[:, None]
            found = self.assert_found(y, wrong, act_fun=act_fun)
            right = torch.ones(600, dtype=torch.bool)
            right[wrong] = False
            torch.testing.assert_close(found(self.x)[right], y[right], rtol=0, atol=1e-9)

    def test_rows_that_were_set_aside_come_back_where_the_network_gives_them(self):
        y = self.answers()
        y[11] = -999
        session = self.session(y, aside=(11, 200, 309))
        judgement = judge(session, self.start(session, self.teacher).network)
        self.assertEqual((sorted(judgement.left_out), len(judgement.session.answers)), ([11], 539))

    def test_a_query_far_from_all_others_is_an_error_where_its_answer_is_missed(self):
        y = self.answers()
        self.x = self.x.clone()
        self.x[[12, 29], 1] = 1e6
        session = self.session(y, aside=(12, 29))
        judgement = judge(session, self.start(session, self.teacher).network)
        self.assertEqual((sorted(judgement.left_out), judgement.doubtful), ([12, 29], ()))

    def test_many_such_queries_may_show_a_neuron(self):
        y = self.answers()
        self.x = self.x.clone()
        self.x[10:25, 1] += 100
        session = self.session(y, aside=range(10, 25))
        judgement = judge(session, self.start(session, self.teacher).network)
        self.assertEqual(judgement.left_out, frozenset())
        self.assertEqual(set(judgement.doubtful) - set(range(10, 25)), set())

    def test_a_neuron_that_few_rows_show_is_no_error(self):
        def rare(vectors):
            vectors[0][4] = torch.tensor([2.0, 1, 0, 0, -5.5])
            vectors[1][:, 4] = 2.0

        y = self.answers("relu", rare)
        few = int((self.x @ torch.tensor([2.0, 1, 0, 0]).double() > 5.5).sum())
        self.assertIn(few, range(2, 20))
        session = self.session(y, "relu")
        lacking = self.teacher.without_neuron(1, 4, torch.cat([self.teacher.vectors[1][:, :4], self.teacher.vectors[1][:, 5:]], 1))
        cleaned = trimmed(session, self.start(session, lacking), os.path.join(self.root, "rows"))
        judgement = judge(*((cleaned[0], cleaned[1].network) if cleaned else (session, self.start(session, lacking).network)))
        self.assertEqual(judgement.left_out, frozenset())

    def test_a_network_that_lacks_a_neuron_leaves_nothing_out(self):
        y = self.answers()
        session = self.session(y)
        lacking = self.teacher.without_neuron(1, 0, self.teacher.vectors[1][:, 1:])
        self.assertIsNone(trimmed(session, self.start(session, lacking), os.path.join(self.root, "rows")))
        self.assertEqual(judge(session, self.start(session, lacking).network).left_out, frozenset())

    def test_noisy_answers_are_no_errors_but_gross_ones_are(self):
        y = self.answers() + 1e-3 * queries(600, 2)
        self.assert_found(y, [])
        y[42] += 0.5
        self.assert_found(y, [42])

    def test_a_clean_file_stays_as_it_is(self):
        session = self.session(self.answers())
        exact = self.start(session, self.teacher)
        self.assertIsNone(trimmed(session, exact, os.path.join(self.root, "rows")))
        self.assertIs(judge(session, exact.network).session.loaders.train, session.loaders.train)

    def test_the_answers_of_a_network_have_no_rows(self):
        session = dataclasses.replace(self.session(self.answers()), rows=None)
        exact = self.start(session, self.teacher)
        self.assertIsNone(trimmed(session, exact, self.root))
        self.assertIs(judge(session, exact.network).session, session)


class TestHull(unittest.TestCase):
    def test_the_distance_is_that_to_the_nearest_face(self):
        square = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
        for point, distance in (([0.5, 0.4], 0), ([0.5, 3.0], 2), ([2.0, 2.0], 2**0.5), ([-0.25, 0.5], 0.25)):
            self.assertAlmostEqual(distance_to_hull(np.array([point]), square), distance, 5)


class TestNames(unittest.TestCase):
    def test_rows_are_named_by_number(self):
        self.assertEqual(named([1234]), "row 1234")
        self.assertEqual(named([7, 3, 5]), "rows 3, 5 and 7")
        self.assertEqual(named(range(11)), "11 rows (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)")


if __name__ == "__main__":
    unittest.main()
