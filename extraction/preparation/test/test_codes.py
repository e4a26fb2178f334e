"""Codes for missing values in X are noticed, and what the network saw in their place is found."""

import dataclasses
import unittest

import torch

from extraction.network import Layers
from extraction.preparation.codes import coded, codes_in, replaced
from extraction.preparation.coordinates import Coordinates
from extraction.preparation.outliers import judge
from extraction.preparation.suspects import suspects
from extraction.preparation.test.test_outliers import rows_of
from extraction.test.known_networks import network, queries, session_of
from testing.test_case import TestCase


def places(found):
    return torch.nonzero(found).tolist()


class TestCoded(unittest.TestCase):
    def test_a_number_that_occurs_often_and_far_from_all_others_is_a_code(self):
        x = queries(300).clone()
        x[[5, 8], 1] = -999
        x[9, 2] = -999
        x[100:200, 3] = 9999
        x[200:202, 3] = -9999
        self.assertEqual(coded(x).sum(0).tolist(), [0, 2, 1, 102])

    def test_other_columns_have_none(self):
        x = queries(300)
        first = x[:, 0]
        for column in (first, (first > 2).double(), first.exp().exp(), (4 * first).round(), 1e9 + first, torch.ones_like(first)):
            self.assertFalse(coded(column[:, None]).any())
        x = x.clone()
        x[7, 0] = -999  # once
        self.assertFalse(coded(x).any())

    def test_rows_with_codes_are_set_aside_however_many(self):
        x = queries(800).clone()
        y = network("mlp_4_5_2")(x).detach()
        x[::7, 2] = -999
        self.assertEqual(torch.nonzero(suspects(x, y))[:, 0].tolist(), list(range(0, 800, 7)))


class TestReplaced(TestCase):
    def test_the_value_that_the_network_saw_is_found(self):
        x, teacher = queries(600).clone(), network("mlp_4_5_2", "gelu")
        x[20:60, 2] = 0.125
        x[100:102, 0] = 0.0
        y = teacher(x).detach()
        x[20:60, 2] = x[100:102, 0] = -999
        rows = rows_of(x, y)
        scaling = Coordinates.of_inputs(3 * queries(600) + 1)
        inside = rows.changed(lambda loader: loader.over(type(loader.dataset)(scaling.apply(loader.examples), loader.labels)))
        first, last = teacher.layer_vectors()
        layers = Layers((scaling.unfold_inputs(first), last), "gelu")
        missed = [*range(20, 60), 100, 101]
        found = replaced(layers, scaling, (rows, inside), missed, torch.full((2,), 1e-9).double())
        self.assertEqual([(each.column, each.code, sorted(each.rows)) for each in found], [(0, -999, [100, 101]), (2, -999, missed[:-2])])
        self.assertAlmostEqual(found[0].value, 0, 9)
        self.assertAlmostEqual(found[1].value, 0.125, 9)
        self.assertEqual(
            str(found[1]),
            "-999 in column 2 of X is a code for a missing value, for which the network saw 0.125: 40 rows with it are left out",
        )

    def test_such_rows_are_left_out_and_others_are_named_with_the_code(self):
        x, teacher = queries(600).clone(), network("mlp_4_5_2")
        y = teacher(x).detach()
        y[20:60] = teacher(x[20:60] * torch.tensor([1.0, 1, 0, 1]).double()).detach()
        x[20:60, 2] = -999
        for changed, left_out in ((y, set(range(20, 60))), (y + (x[:, 2] == -999)[:, None] * queries(600, 2), set())):
            rows = rows_of(x, changed).without(range(20, 60))
            session = dataclasses.replace(session_of("students_mlp(2)_4_12_2", rows.kept, self.root), rows=rows)
            judgement = judge(session, teacher)
            self.assertEqual(judgement.left_out, left_out)
        self.assertEqual(judgement.doubtful, tuple(range(20, 60)))
        self.assertRegex(codes_in(rows, [20, 21]), r"^ \(-999 in column 2 of X seems to be a code")
        self.assertEqual(codes_in(rows, [3]), "")


if __name__ == "__main__":
    unittest.main()
