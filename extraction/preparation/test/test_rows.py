"""The rows of a file in a session: which count, and the numbers by which they are named."""

import dataclasses

import numpy as np
import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.preparation.rows import Rows
from extraction.preparation.scaling import Scaling
from extraction.test.known_networks import queries, session_of, without_pictures
from testing import toy_teacher
from testing.test_case import TestCase


def rows_of(x, y):
    """Rows 100, 101, ..., every fourth of which is for test."""
    loaders, numbers = [], torch.arange(100, 100 + len(x))
    for part in (numbers % 4 != 0, numbers % 4 == 0):
        dataset = Dataset(x[part], y[part])
        dataset.rows = numbers[part]
        loaders.append(DataLoader(dataset, 5, 3, torch.float64))
    loaders[0].order_seed = 7
    return Rows.of(Loaders(*loaders))


class TestRows(TestCase):
    def test_rows_are_left_out_by_number(self):
        x = queries(20)
        kept = rows_of(x, x).without([101, 108]).kept
        self.assertTrue(torch.equal(kept.train.examples, x[[2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19]]))
        self.assertTrue(torch.equal(kept.test.examples, x[[0, 4, 12, 16]]))
        self.assertEqual((kept.train.batch_size, kept.train.seed, kept.train.order_seed), (5, 3, 7))

    def test_without_a_row_left_out_the_loaders_are_the_same(self):
        rows = rows_of(queries(20), queries(20))
        self.assertEqual([id(loader) for loader in rows.kept], [id(loader) for loader in rows.loaders])

    def test_a_scaling_keeps_numbers_beside_their_rows(self):
        x = torch.cat([queries(20, 2), torch.zeros(20, 1).double()], 1)
        x[8, 2] = 1.0  # a row for test along a direction that no row for training has
        rows = rows_of(x, 50 + queries(20, 2))
        scaling = Scaling.of(rows.loaders.train)
        scaled = rows.scaled(scaling)
        self.assertEqual(scaled.numbers[1].tolist(), [100, 104, 112, 116])
        self.assertEqual(len(scaled.without([112]).kept.test.labels), 3)
        session = session_of("students_mlp(2)_3_4_2", rows.kept, self.root)
        session = dataclasses.replace(session, scaling=scaling).of_file(rows, scaled).leaving_out([101, 108, 112])
        self.assertEqual([len(loader.labels) for loader in (*session.loaders, *session.own)], [14, 3, 14, 3])
        torch.testing.assert_close(scaling.outputs.apply(session.own.train.labels), session.answers)
        self.assertEqual(len(session.unscaled.leaving_out([]).answers), 15)


class TestProbabilities(TestCase):
    def test_answers_between_zero_and_one_may_be_probabilities_if_a_budget_allows_one_reading_only(self):
        y = queries(20, 2)
        cases = (torch.sigmoid(y), None, 100, True), (torch.sigmoid(y), "raw", 100, False), (torch.sigmoid(y), None, None, False)
        for answers, link, budget, expected in (*cases, (y, None, 100, False)):
            rows = rows_of(queries(20), answers)
            session = session_of("students_mlp(2)_4_4_2", rows.kept, self.root).of_file(rows, rows)
            session.desc.dataset_hparams.link, session.desc.dataset_hparams.query_budget = link, budget
            self.assertIs(session.may_be_probabilities, expected)


class TestFile(TestCase):
    """`extract` on a file with a gross error."""

    def test_rows_are_named_in_the_report_and_while_students_are_trained(self):
        _, teacher = toy_teacher.make("mlp_3_2_2", "tanh", seed=2)
        x = np.random.RandomState(0).randn(300, 3)
        with torch.no_grad():
            y = teacher(torch.from_numpy(x)).numpy().copy()
        y[41] = -999
        np.savez(f"{self.root}/mine.npz", X=x, y=y)
        with without_pictures():
            status, out, err = self.command(
                "extract", "--default_hparams=students_mlp(2)_3_4_2", "--act_fun=tanh", f"--teacher_name={self.root}/mine.npz",
                "--training_steps=300it", "--gamma=1", "--global_seed=1",
            )  # fmt: skip
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Note: row 41, counted from 0, may have gross errors: students do not learn from such rows.", out)
        self.assertIn("note        row 41 of 300, counted from 0, contradicts all others and is left out", out)
        self.assertIn("Verdict: IDENTIFIED exactly. ", out)
        self.assertIn("all its weights. Row 41 of 300, counted from 0, contradicts all others and is left out.", out)
