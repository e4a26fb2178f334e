"""What single queries tell, against the hat matrix of numpy."""

import numpy as np
import torch

from extraction.certification.determination import first_of_equal
from extraction.certification.telling import Telling
from testing.test_case import TestCase


def telling(*shape, seed=0):
    changes = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Telling(torch.arange(100, 100 + shape[0]), changes)


class TestTelling(TestCase):
    def test_shares_are_the_leverage_of_least_squares(self):
        told = telling(9, 2, 4)
        rows = told.changes.reshape(18, 4).numpy()
        leverage = np.diag(rows @ np.linalg.inv(rows.T @ rows) @ rows.T).reshape(9, 2).sum(1)
        np.testing.assert_allclose(told.shares.numpy(), leverage, rtol=1e-9)
        self.assertEqual(told.most(3).tolist(), (100 + np.argsort(-leverage)[:3]).tolist())
        self.assertEqual(told.rare().places.tolist(), (100 + np.flatnonzero(leverage > 4 / 9)).tolist())

    def test_a_combination_that_no_query_tells_has_no_share(self):
        told = telling(9, 2, 4)
        more = Telling(told.places, torch.cat([told.changes, 0 * told.changes[:, :, :1]], 2))
        torch.testing.assert_close(more.shares, told.shares)
        self.assertTrue(told.is_plenty)
        self.assertFalse(more.has_spare)

    def test_a_query_that_alone_tells_a_combination_cannot_be_spared(self):
        for tellers, spare in ((1, False), (2, True)):
            told = telling(20, 2, 4)
            told.changes[tellers:, :, 0] = 0
            self.assertEqual((told.has_spare, told.is_plenty), (spare, spare))

    def test_as_many_equations_as_combinations_leave_none_to_spare(self):
        for count, spare, plenty in ((2, False, False), (3, True, False), (4, True, True)):
            told = telling(count, 2, 4)
            self.assertEqual((told.has_spare, told.is_plenty), (spare, plenty))


class TestDistinct(TestCase):
    def test_the_first_of_equal_queries_counts(self):
        queries = torch.tensor([[2.0, 1.0], [0.0, 1.0], [2.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
        self.assertEqual(first_of_equal(queries).tolist(), [0, 1, 3])
