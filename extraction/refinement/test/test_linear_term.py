"""A linear map beside a network is found with it, on known networks and against numpy."""

import os

import numpy as np
import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.network import Layers
from extraction.preparation.scaling import Scaling
from extraction.refinement import linear_term
from extraction.refinement.linear_term import determination, gain, with_linear_term
from extraction.session import Session
from extraction.test.known_networks import network, queries, session_of
from testing.test_case import TestCase

LINEAR = torch.tensor([[0.5, 0.0, -1.0], [0.3, 2.0, 0.1]], dtype=torch.float64)


def loaders_of(x: torch.Tensor, y: torch.Tensor) -> Loaders:
    return Loaders(*(DataLoader(Dataset(part_x, part_y), 300, 1, torch.float64) for part_x, part_y in ((x, y), (x[:40], y[:40]))))


def answers(layers: Layers, x: torch.Tensor, linear: torch.Tensor = LINEAR) -> torch.Tensor:
    """The outputs of a tanh network with one hidden layer plus a linear map, in numpy."""
    first, last = (np.asarray(vectors) for vectors in layers.vectors)
    x = np.asarray(x)
    return torch.as_tensor(np.tanh(x @ first[:, :-1].T + first[:, -1]) @ last[:, :-1].T + last[:, -1] + x @ np.asarray(linear).T)


class TestLinearTerm(TestCase):
    def setUp(self):
        super().setUp()
        self.layers, self.x = Layers.of(network("mlp_3_4_2", seed=3)), queries(300, 3)
        noise = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        first, last = self.layers.vectors
        self.near = self.layers.replace(first + 1e-2 * noise, last)
        self.location = os.path.join(self.root, "extract_toy", "seed_1", "main", "fit")

    def session(self, y: torch.Tensor, act_fun: str = "tanh") -> Session:
        return session_of("students_mlp(2)_3_8_2", loaders_of(self.x, y), self.root, act_fun)

    def test_network_and_map_are_exact_and_a_small_neuron_in_excess_is_removed(self):
        first, last = self.near.vectors
        small = torch.tensor([[0.1, 0.2, -0.1, 0.05]], dtype=torch.float64)
        bent = self.near.replace(torch.cat([first, small]), torch.cat([last[:, :4], last[:, :2], last[:, -1:]], 1)[:, [0, 1, 2, 3, 4, 6]])
        session, found = with_linear_term(self.session(answers(self.layers, self.x)), bent, self.location)
        np.testing.assert_allclose(session.linear_term, LINEAR, atol=1e-12)
        self.assertEqual(found.network.sizes, [3, 4, 2])
        order = torch.cdist(self.layers.vectors[0], found.network.layer_vectors()[0]).argmin(1)
        np.testing.assert_allclose(found.network.layer_vectors()[0][order], self.layers.vectors[0], atol=1e-11)
        np.testing.assert_allclose(session.answers, answers(self.layers, self.x, 0 * LINEAR), atol=1e-12)

    def test_nothing_is_found_where_the_network_lacks_a_neuron_or_another_function_is_added(self):
        first, last = self.near.vectors
        lacking = self.near.replace(first[1:], last[:, 1:])
        y = answers(self.layers, self.x)
        for layers, wanted in ((lacking, y), (self.near, y + 0.1 * self.x[:, :1].square()), (self.near, y - self.x @ LINEAR.T)):
            self.assertIsNone(with_linear_term(self.session(wanted), layers, self.location))

    def test_a_map_that_neurons_can_carry_is_no_term(self):
        relu = self.near.replace(*self.near.vectors)
        for act_fun, possible in (("tanh", True), ("sigmoid", True), ("g", True), ("gelu", False), ("relu", False), ("identity", False)):
            self.assertEqual(linear_term.is_possible(act_fun), possible)
        session = self.session(answers(self.layers, self.x), "gelu")
        self.assertIsNone(with_linear_term(session, Layers(relu.vectors, "gelu"), self.location))

    def test_the_gain_is_that_of_least_squares(self):
        y = answers(self.layers, self.x)
        first = self.near.vectors[0].numpy()
        hidden = np.tanh(self.x.numpy() @ first[:, :-1].T + first[:, -1])
        wanted = (y / y.std(0, correction=0)).numpy()
        expected = []
        for features in (np.c_[hidden, np.ones(300)], np.c_[hidden, self.x, np.ones(300)]):
            left = wanted - features @ np.linalg.lstsq(features, wanted, rcond=None)[0]
            expected.append((left**2).mean())
        np.testing.assert_allclose(gain(self.near, self.x, y), expected, rtol=1e-8)

    def test_a_neuron_that_is_linear_on_the_queries_is_not_determined_beside_a_map(self):
        model = network("mlp_3_4_2", seed=3)
        y = answers(self.layers, self.x, 0 * LINEAR)
        loader = loaders_of(self.x, y).train
        rank, bound = determination(model, loader)
        self.assertEqual(rank, sum(parameter.numel() for parameter in model.parameters()))
        self.assertLess(bound, 1e-12)
        first, last = model.layer_vectors()
        first[0] *= 1e-9
        model.load_layer_vectors([first, last])
        rank, bound = determination(model, DataLoader(Dataset(self.x, model(self.x).detach()), 300, 1, torch.float64))
        self.assertLess(rank, sum(parameter.numel() for parameter in model.parameters()))
        self.assertIsNone(bound)

    def test_a_map_inside_is_one_of_the_users_inputs_and_outputs(self):
        x = self.x @ torch.tensor([[3.0, 1, 0], [0, 0.01, 0], [0, 0, 200]], dtype=torch.float64) + 40
        y = answers(self.layers, self.x) * torch.tensor([100.0, 0.01], dtype=torch.float64) + 7
        own = loaders_of(x, y)
        scaling = Scaling.of(own.train)
        session = session_of("students_mlp(2)_3_8_2", scaling.apply(own), self.root)
        session = Session(session.desc, session.loaders, self.root, False, scaling=scaling, own=own)
        inside = torch.randn(session.answers.shape[1], session.queries.shape[1], dtype=torch.float64)
        less = session.less_linear_map(inside)
        np.testing.assert_allclose(less.own.train.labels, y - x @ less.linear_term.T, rtol=1e-12)
        np.testing.assert_allclose(less.answers, scaling.apply(less.own).train.labels, atol=1e-9)
        moved = session.answers - less.answers - session.queries @ inside.T
        np.testing.assert_allclose(moved, moved[:1].expand_as(moved), atol=1e-9)

    def test_units_of_g_may_be_a_linear_map(self):
        for linear, act_fun, count in ((LINEAR, "g", 6), (LINEAR, "tanh", 0), (None, "g", 0)):
            self.assertEqual((linear_term.ambiguous(linear, act_fun), len(linear_term.remarks(linear, act_fun))), (count, int(count > 0)))

    def test_the_map_is_kept_beside_the_network(self):
        self.assertEqual(linear_term.saved(None, self.root), [])
        (sentence,) = linear_term.saved(LINEAR, self.root)
        self.assertIn(linear_term.FILE, sentence)
        np.testing.assert_array_equal(np.load(os.path.join(self.root, linear_term.FILE)), LINEAR)
