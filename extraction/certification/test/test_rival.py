"""Rivals of known networks, where few queries tell some of the weights."""

import math
from unittest import mock

import numpy as np
import torch

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction.certification import rival
from extraction.certification.determination import determination
from extraction.certification.test.test_determination import jacobian_of
from extraction.symmetry import symmetries
from extraction.test.test_certificate import network
from testing.test_case import TestCase


def loader_of(model, rare, count=600, distinct=True):
    """Answers to queries of which only the first `rare` ones differ from 0 in the last column, all in one number unless `distinct`."""
    x = torch.randn(count, model.sizes[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[rare:, -1] = 0.0
    if not distinct:
        x[:rare] = x[0]
    return DataLoader(Dataset(x, model(x).detach()), count, seed=1, dtype=torch.float64)


class TestRivalry(TestCase):
    def test_a_network_that_answers_refute_is_no_rival(self):
        """Few of the queries vary in a column, so that hardly any of those that the first rival is fitted to tell the weights from it."""
        model = network()
        loader = loader_of(model, 10)
        self.assertLess(rival.rivalry(model, loader), 1e-8)
        with mock.patch.object(rival, "DISAGREEMENT", math.inf):
            self.assertGreater(rival.rivalry(model, loader), 1e-3)

    def test_weights_that_few_queries_tell_are_determined_by_these(self):
        """An examination has a small part of all queries, and those that tell what this part leaves open."""
        for act_fun in ("tanh", "relu", "g"):
            with self.subTest(act_fun):
                model = network(act_fun)
                loader = loader_of(model, 20, 3000)
                loader = loader.at(torch.randperm(3000, generator=torch.Generator().manual_seed(3)))
                rank, bound = determination(model, symmetries[act_fun], loader)
                free = 4 if act_fun == "relu" else 0
                self.assertEqual(rank, np.linalg.matrix_rank(jacobian_of(model, loader.examples)))
                self.assertEqual(rank, 26 - free)
                self.assertLess(bound, 1e-9)
                self.assertLess(rival.rivalry(model, loader), 1e-8)

    def test_weights_that_a_single_query_tells_count_as_open(self):
        """One query with three answers determines the two weights from a column, but no other query tests them; nor do its copies."""
        model = network(name="mlp_3_2_3")
        for rare, distinct, confirmed in ((1, True, False), (5, False, False), (5, True, True)):
            with self.subTest(rare=rare, distinct=distinct):
                loader = loader_of(model, rare, distinct=distinct)
                with mock.patch.object(rival, "some_queries", return_value=torch.arange(599, rare - 1, -1)):
                    self.assertEqual(rival.rivalry(model, loader) < 1e-8, confirmed)
                self.assertEqual(determination(model, symmetries["tanh"], loader)[0], 17 if confirmed else 15)
