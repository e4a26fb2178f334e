"""Rows with gross errors are found before training; rows of clean files are not."""

import unittest

import torch

from extraction.preparation.suspects import far, suspects
from extraction.test.known_networks import network, queries


def clean(act_fun="tanh", seed=0):
    """Queries and exact answers."""
    x = queries(800)
    return x.clone(), network("mlp_4_5_2", act_fun, seed)(x).detach()


def places(found):
    return torch.nonzero(found)[:, 0].tolist()


class TestSuspects(unittest.TestCase):
    def test_clean_files_have_none(self):
        for act_fun in ("tanh", "relu"):
            x, y = clean(act_fun)
            for answers in (y, y.round(decimals=3), y.float().double(), y + 1e-2 * queries(800, 2), y * 1e6 + 1e7):
                self.assertEqual(places(suspects(x, answers)), [])

    def test_gross_answers_are_found(self):
        for place, change in ((123, 20.0), (123, -999.0), (9, 1e9), (799, 1e30)):
            x, y = clean()
            y[place, 1] += change
            self.assertEqual(places(suspects(x, y)), [place])

    def test_a_gross_query_is_found(self):
        x, y = clean()
        x[17, 2] = 1e6
        self.assertEqual(places(suspects(x, y)), [17])

    def test_two_in_a_hundred_are_found(self):
        x, y = clean()
        rows = torch.arange(3, 800, 50)
        y[rows] = -999
        self.assertEqual(places(suspects(x, y)), rows.tolist())

    def test_more_than_a_small_share_are_no_outliers(self):
        x, y = clean()
        y[::10] = -999
        self.assertEqual(places(suspects(x, y)), [])


class TestFar(unittest.TestCase):
    def test_rare_values_of_a_column_that_hardly_varies_are_not_far(self):
        indicator = (torch.arange(500) % 50 == 0).double()[:, None]
        self.assertEqual(places(far(indicator)), [])
        self.assertEqual(places(far(1e-9 * queries(500) + indicator)), list(range(0, 500, 50)))

    def test_heavy_tails_are_not_far(self):
        self.assertEqual(places(far(queries(2000).mul(2).exp())), [])

    def test_nothing_is_far_from_a_constant(self):
        self.assertEqual(places(far(torch.ones(100, 2).double())), [])


if __name__ == "__main__":
    unittest.main()
