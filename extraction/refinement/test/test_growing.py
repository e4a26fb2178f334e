"""Neurons that a network lacks are found in what it leaves unexplained, on known networks."""

import os
from unittest import mock

import numpy as np
import torch

from extraction.fitting import Fit, fit, is_exact
from extraction.network import Layers, contributions, fit_outputs
from extraction.refinement import growing
from extraction.refinement.growing import grow, growths, promising, with_resolved_signs, without_excess
from extraction.refinement.selection import completed
from extraction.session import Session
from extraction.test.known_networks import answered, network, queries, session_of
from models.mlp import FullyConnected
from testing.test_case import TestCase


class TestGrowing(TestCase):
    def setUp(self):
        super().setUp()
        patch = mock.patch.multiple(growing, STARTS=12, CLIMB_STEPS=80)
        patch.start()
        self.addCleanup(patch.stop)

    def folder(self, name: str) -> str:
        """The path of a folder in the folder of a run."""
        return os.path.join(self.root, "extract_toy", "seed_1", "main", name)

    def session(self, teacher: FullyConnected, count: int = 400) -> Session:
        """A session with a teacher's answers."""
        students = f"students_mlp(2)_{'_'.join(map(str, teacher.sizes))}"
        return session_of(students, answered(teacher, queries(count), count), self.root, teacher.act_fun)

    def built(self, session: Session, layers: Layers) -> Fit:
        """A network as if it had been fitted."""
        model, hparams = layers.to_network(session.desc.model_hparams)
        return Fit(hparams, model, model, self.folder("built"))

    def lacking(self, teacher: FullyConnected, depth: int) -> tuple[Layers, torch.Tensor]:
        """The teacher's layers without the neuron that contributes most to the outputs, and this neuron."""
        neuron = int(contributions(teacher, depth, queries(400)).argmax())
        layer, following = teacher.layer_vectors()[depth - 1 : depth + 1]
        rest = torch.cat([following[:, :neuron], following[:, neuron + 1 :]], 1)
        return Layers.of(teacher).without_neuron(depth, neuron, rest), layer[neuron]

    def test_the_neuron_that_is_missing_explains_all_that_is_missing(self):
        for act_fun in ("tanh", "g", "relu"):
            with self.subTest(act_fun):
                teacher = network("mlp_4_5_3", act_fun)
                session = self.session(teacher)
                layers, missing = self.lacking(teacher, 1)
                best = growths(self.built(session, layers).network, session.queries, session.answers, 0)[0]
                cosine = torch.cosine_similarity(best.layers.vectors[0][-1], missing, 0).abs()
                self.assertGreater(float(cosine), 0.99)
                self.assertGreater(best.gain, 0.99)

    def test_a_gain_is_that_of_least_squares_behind_the_layer(self):
        teacher = network("mlp_4_5_4_3")
        session = self.session(teacher)
        layers, _ = self.lacking(teacher, 1)
        student = self.built(session, layers).network
        growth = next(growth for growth in growths(student, session.queries, session.answers, 0) if growth.depth == 1)
        (w1, b1), (w2, b2), (w3, b3) = ((v[:, :-1].numpy(), v[:, -1].numpy()) for v in layers.vectors)
        x, y = session.queries.numpy(), session.answers.numpy()
        hidden = np.tanh(x @ w1.T + b1)
        above = np.tanh(hidden @ w2.T + b2)
        new = growth.layers.vectors[0][-1].numpy()
        features = np.column_stack([hidden, np.ones(len(x)), np.tanh(x @ new[:-1] + new[-1])])
        slopes = w3[None] * (1 - above**2)[:, None]  # [Q, O, L]
        columns = (slopes[:, :, :, None] * features[:, None, None]).reshape(y.size, 4, -1)
        missing = (y - above @ w3.T - b3).ravel()
        lost = []
        for used in (columns[..., :-1], columns):
            matrix = used.reshape(y.size, -1)
            lost.append(np.sum((missing - matrix @ np.linalg.lstsq(matrix, missing, rcond=None)[0]) ** 2))
        self.assertAlmostEqual(growth.gain, 1 - lost[1] / lost[0], places=6)

    def test_a_network_that_lacks_a_neuron_grows_it(self):
        for name, act_fun, depth in (("mlp_4_5_3", "relu", 1), ("mlp_4_5_4_3", "tanh", 1)):
            with self.subTest(name=name, act_fun=act_fun):
                teacher = network(name, act_fun)
                session = self.session(teacher)
                layers, _ = self.lacking(teacher, depth)
                folder = self.folder(f"{name}_{act_fun}")
                fits = grow(session, fit(session, layers, folder), f"{folder}_grown")
                self.assertTrue(is_exact(fits[-1].network, session.loaders.train))
                self.assertEqual(fits[-1].network.sizes, teacher.sizes)

    def test_nothing_grows_where_only_noise_is_left(self):
        teacher = network("mlp_4_5_3")
        session = self.session(teacher)
        session.answers.add_(1e-3 * torch.randn(400, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        fitted = fit(session, Layers.of(teacher), self.folder("noisy"))
        self.assertEqual(promising(fitted.network, session), [])
        self.assertEqual(grow(session, fitted, self.folder("grown")), [fitted])

    def test_signs_are_resolved_before_a_grown_network_is_fitted(self):
        teacher = network("mlp_4_5_3", "relu")
        session, layers = self.session(teacher), Layers.of(teacher)
        turned = layers.vectors[0] * torch.tensor([-1.0, 1, 1, -1, 1], dtype=torch.float64)[:, None]
        outputs = fit_outputs(layers.replace(turned).activations(session.queries), session.answers).T
        found = with_resolved_signs(layers.replace(turned, outputs), session)
        torch.testing.assert_close(found.vectors, layers.vectors)

    def test_an_exact_relu_network_with_a_neuron_in_both_signs_loses_one(self):
        teacher = network("mlp_4_5_3", "relu")
        session, (hidden, outputs) = self.session(teacher), teacher.layer_vectors()
        both = torch.cat([hidden, -hidden])
        shared = torch.cat([outputs[:, :-1], torch.zeros(3, 5, dtype=torch.float64), outputs[:, -1:]], 1)
        found = without_excess(session, self.built(session, Layers((both, shared), "relu")), self.folder("excess"))
        self.assertTrue(is_exact(found.network, session.loaders.train))
        self.assertEqual(found.network.sizes, teacher.sizes)

    def test_units_that_never_switch_are_not_in_excess(self):
        teacher = network("mlp_4_5_1", "relu")
        hidden, outputs = teacher.layer_vectors()
        hidden[0, -1] += 50
        teacher.load_layer_vectors([hidden, outputs])
        start = self.built(self.session(teacher), Layers.of(teacher))
        self.assertIs(without_excess(self.session(teacher), start, self.folder("linear")), start)

    def test_two_neurons_that_stand_for_one_are_merged(self):
        teacher = network("mlp_4_5_3")
        session, (hidden, outputs) = self.session(teacher), teacher.layer_vectors()
        apart = 1e-4 * hidden[0].flip(0)
        split = torch.cat([hidden[:1] - apart, hidden[1:], hidden[:1] + apart])
        shared = torch.cat([outputs[:, :1] / 2, outputs[:, 1:-1], outputs[:, :1] / 2, outputs[:, -1:]], 1)
        start = self.built(session, Layers((split, shared), "tanh"))
        self.assertFalse(is_exact(start.network, session.loaders.train))
        (_, found), *_ = completed(session, ([], start), self.folder("completed"))
        self.assertTrue(is_exact(found.network, session.loaders.train))
        self.assertEqual(found.network.sizes, teacher.sizes)
