"""Columns that vary in few queries come back with their weights, or stay out where the answers do not tell these."""

import dataclasses
import os
from unittest import mock

import torch

from extraction.fitting import Fit
from extraction.network import Layers
from extraction.preparation import seldom
from extraction.preparation.scaling import Scaling
from extraction.preparation.seldom import restored
from extraction.preparation.test.test_rows import rows_of
from extraction.test.known_networks import queries, session_of, without_pictures
from testing import planted
from testing.test_case import TestCase


class TestSeldom(TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(without_pictures())
        self.enterContext(mock.patch.object(seldom, "STARTS", (24,)))  # more take longer

    def found(self, act_fun="tanh", model="mlp_6_5_2", rows=10, wrong=0.0, size=1.0):
        """What becomes of a network that is known but for the weights from two columns: one of 0 and 1, one of numbers.

        Returns:
            The queries, the network, the session, and the recovered layers for the user's inputs and outputs.
        """
        x = queries(800, 6)
        x[:, 2], x[:, 4] = 0, 3
        x[1 : 4 * rows : 4, 2] = 1
        x[2 : 4 * rows : 4, 4] += queries(rows, 1)[:, 0]
        sizes = [int(size) for size in model.split("_")[1:]]
        true = planted.draw(sizes, act_fun, x, torch.Generator().manual_seed(0))
        true.vectors[0][:, 2] *= size
        y = true.pre_activations(x)
        y[1 : 4 * rows : 4] += wrong * queries(rows, 2)
        every = rows_of(x, y)
        scaling = Scaling.of(every.loaders.train, [4])
        self.assertEqual(scaling.inputs.too_rare, [2, 4])
        own = every.without_rare(scaling)
        session = session_of(f"students_{model.replace('mlp', 'mlp(2)')}", own.kept, self.root, act_fun)
        session = dataclasses.replace(session, scaling=scaling).of_file(own, own.scaled(scaling), every)
        first, *hidden, last = true.vectors
        outputs = scaling.outputs
        last = torch.cat([last[:, :-1], last[:, -1:] - outputs.mean[:, None]], 1)
        inside = true.replace(scaling.inputs.unfold_inputs(first), *hidden, outputs.inward.T @ (last / outputs.spread[:, None]))
        built, hparams = inside.to_network(session.students_hparams)
        session, (_, fitted) = restored(session, ([], Fit(hparams, built, built, self.root)), os.path.join(self.root, act_fun))
        self.assertEqual(fitted.before.sizes[0], fitted.network.sizes[0])
        return x, true, session, session.scaling.fold(Layers.of(fitted.network))

    def test_the_weights_come_back(self):
        for act_fun, model in (("leaky_relu", "mlp_6_5_2"), ("gelu", "mlp_6_5_4_2")):
            x, true, session, ours = self.found(act_fun, model)
            self.assertEqual((session.scaling.inputs.too_rare, len(session.queries), session.asked), ([], 600, 20))
            differs = (session.own.train.examples[:, [2, 4]] != torch.tensor([0, 3])).any(1)
            self.assertTrue(differs[-20:].all() and not differs[:-20].any())
            self.assertLess(planted.worst_error(planted.aligned(true, ours, x), ours, x), 1e-9)

    def test_a_column_with_fewer_equations_than_weights_stays_out(self):
        x, true, session, ours = self.found(rows=2)
        self.assertEqual((session.scaling.inputs.too_rare, len(session.queries)), ([2, 4], 596))
        self.assertLess(float(ours.vectors[0][:, [2, 4]].abs().max()), 1e-12)

    def test_a_column_that_saturates_neurons_stays_out(self):
        x, true, session, ours = self.found(size=60.0)
        self.assertEqual((session.scaling.inputs.too_rare, len(session.queries)), ([2], 590))

    def test_a_column_whose_answers_no_weights_explain_stays_out(self):
        x, true, session, ours = self.found(wrong=0.5)
        self.assertEqual((session.scaling.inputs.too_rare, len(session.queries)), ([2], 590))
        kept = [0, 1, 3, 4, 5]
        torch.testing.assert_close(ours.vectors[0][:, kept], true.vectors[0][:, kept], rtol=0, atol=1e-9)
