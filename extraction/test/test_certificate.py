"""Acceptance and refusal of networks by the certificate, on known networks."""

import copy
import dataclasses
import json
import math
import types
import unittest

import numpy as np
import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.answers import Answers
from extraction.certificate import certify
from extraction.certification.checks import RULES, SEPARATION, WEIGHT_ERROR, Certificate
from extraction.clustering import Clustering
from extraction.fitting import Fit
from extraction.recovery import RecoveredLayer
from extraction.search import Reconstruction
from extraction.signs import has_joint_sign_flip
from extraction.symmetry import symmetries
from extraction.test.known_networks import session_of
from foundations.model_hparams import ModelHparams
from models import registry
from models.activation_functions import LEAKY_SLOPE
from testing.test_case import TestCase
from training.second_order import LevenbergMarquardt
from training.train import Objective

SCALABLE = [name for name, symmetry in symmetries.items() if symmetry.positive_scaling]
NONLINEAR = [name for name in symmetries if name != "identity"]


def network(act_fun="tanh", name="mlp_3_4_2", seed=0):
    return registry.get(ModelHparams(name, "kaiming_normal", "uniform", act_fun), seed=seed).double()


def as_if_recovered(model, students=4, holders=4):
    """A reconstruction in which all students have every neuron, except the first, which only `holders` students have."""
    layers = []
    for vectors in model.layer_vectors()[:-1]:
        student, labels = (grid.flatten() for grid in np.indices((students, len(vectors))))
        labels = np.where((labels == 0) & (student >= holders), -1, labels)
        clustering = Clustering(np.zeros(0), np.zeros((0, 4)), 1.0, labels, student)
        layers.append(RecoveredLayer(vectors, clustering, vectors.repeat(students, 1)))
    return Reconstruction(layers, Fit(ModelHparams("mlp_3_4_2", "", ""), model, model, ""), [], "", [])


def queries(count, inputs=3, seed=0):
    return 2 * torch.randn(count, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class CertificateTestCase(TestCase):
    def certify(self, model, teacher=None, count=300, change_queries=lambda x: x, change_answers=lambda y: y, **holders):
        """The certificate of a model for the answers of a teacher, by default itself; checks that JSON can represent every figure."""
        loaders = []
        for seed, size in ((0, count), (1, 40)):
            examples = change_queries(queries(size, model.sizes[0], seed))
            with torch.no_grad():
                answers = change_answers((teacher or model)(examples))
            loaders.append(DataLoader(Dataset(examples, answers), size, seed=5, dtype=torch.float64))
        session = session_of("students_mlp(2)_3_4_2", Loaders(*loaders), self.root)
        certificate = certify(session, as_if_recovered(model, **holders))
        plain = dataclasses.asdict(certificate)
        self.assertEqual(json.loads(json.dumps(plain, allow_nan=False)), plain)
        unknowns = next(check.limit for check in certificate.checks if check.name == "rank")
        return types.SimpleNamespace(
            **{check.name: check.value for check in certificate.checks}, unknowns=unknowns, accepted=certificate.accepted
        )

    def assert_refused(self, certificate):
        self.assertIs(certificate.accepted, False)


class TestChecks(unittest.TestCase):
    figures = {
        "residual": 1e-14,
        "held_out_residual": 1e-14,
        "equations": 600,
        "unknowns": 26,
        "rank": 26,
        "weight_error_bound": 1e-12,
        "separation": 0.3,
        "signs_settled": True,
        "disagreement": 1e-12,
        "agreement": 1.0,
    }

    def test_a_network_that_meets_every_requirement_is_accepted(self):
        self.assertIs(Certificate.of(self.figures).accepted, True)

    def test_a_single_unmet_requirement_refuses_the_network(self):
        worse = {"residual": 1e-10, "held_out_residual": 1e-10, "equations": 26, "rank": 25, "weight_error_bound": 1e-5}
        worse |= {"separation": 1e-7, "signs_settled": False, "disagreement": 1e-7}
        self.assertEqual(worse.keys(), {rule.name for rule in RULES if rule.limit is not None})
        for name, value in worse.items():
            for given in (value, None):
                with self.subTest(name=name, value=given):
                    certificate = Certificate.of(self.figures | {name: given})
                    self.assertEqual(
                        ([check.name for check in certificate.checks if check.met is False], certificate.accepted), ([name], False)
                    )

    def test_a_low_agreement_does_not_refuse_a_network(self):
        self.assertIs(Certificate.of(self.figures | {"agreement": 0.2}).accepted, True)


class TestAccepted(CertificateTestCase):
    def test_the_teacher_itself_is_accepted(self):
        for name, seed in (("mlp_3_4_2", 0), ("mlp_3_4_3_2", 3)):
            for act_fun in ("tanh", "relu", "g") if name == "mlp_3_4_3_2" else NONLINEAR:
                with self.subTest(act_fun=act_fun, name=name):
                    model = network(act_fun, name, seed)
                    certificate = self.certify(model)
                    self.assertIs(certificate.accepted, True)
                    self.assertEqual((certificate.residual, certificate.held_out_residual, certificate.agreement), (0, 0, 1))
                    parameters = sum(parameter.numel() for parameter in model.parameters())
                    hidden = sum(model.sizes[1:-1]) if act_fun in SCALABLE else 0
                    self.assertEqual(
                        (certificate.equations, certificate.unknowns, certificate.rank), (600, parameters - hidden, parameters - hidden)
                    )

    def test_the_certificate_is_deterministic(self):
        model = network("g")
        self.assertEqual(self.certify(model), self.certify(model))

    def test_agreement_is_that_of_the_rarest_neuron(self):
        self.assertEqual(self.certify(network(), students=5, holders=3).agreement, 0.6)


class TestRefused(CertificateTestCase):
    def test_rounded_answers_are_refused(self):
        for digits in (3, 6, 9):
            with self.subTest(digits):
                certificate = self.certify(network(), change_answers=lambda y, digits=digits: torch.round(y, decimals=digits))
                self.assertAlmostEqual(math.log10(certificate.residual), -digits, delta=1)
                self.assert_refused(certificate)

    def test_answers_in_single_precision_are_refused(self):
        self.assert_refused(self.certify(network(), change_answers=lambda y: y.float().double()))

    def test_a_slightly_wrong_weight_is_refused(self):
        for act_fun in ("tanh", "relu", "g"):
            for depth in (0, 1):
                with self.subTest(act_fun=act_fun, depth=depth):
                    teacher = network(act_fun)
                    model = copy.deepcopy(teacher)
                    [model.fc_layers[0], model.fc][depth].weight.data[1, 2] += 1e-6
                    certificate = self.certify(model, teacher)
                    self.assertGreater(certificate.weight_error_bound, 1e-7)
                    self.assert_refused(certificate)

    def test_errors_only_on_held_out_answers_are_refused(self):
        calls = iter((0.0, 1e-6))
        certificate = self.certify(network(), change_answers=lambda y: y + next(calls))
        self.assertEqual(certificate.residual, 0)
        self.assertGreater(certificate.held_out_residual, 1e-7)
        self.assert_refused(certificate)

    def test_errors_only_on_training_answers_are_refused(self):
        calls = iter((1e-9, 0.0))
        certificate = self.certify(network(), change_answers=lambda y: y + next(calls))
        self.assertEqual(certificate.held_out_residual, 0)
        self.assertGreater(certificate.residual, 1e-10)
        self.assertLess(certificate.weight_error_bound, WEIGHT_ERROR)
        self.assert_refused(certificate)

    def test_a_neuron_with_an_effect_below_rounding_is_refused(self):
        """The weights of the neuron change the answers by less than the rounding error."""
        model = network()
        model.fc.weight.data[:, 1] *= 1e-12
        certificate = self.certify(model)
        self.assertEqual((certificate.rank, certificate.residual), (certificate.unknowns, 0))
        self.assertLess(certificate.disagreement, 1e-8)
        self.assertGreater(certificate.weight_error_bound, 1e-4)
        self.assert_refused(certificate)

    def test_another_activation_function_with_twice_the_neurons_is_refused(self):
        """relu(u) = (leaky(u) + slope * leaky(-u)) / (1 - slope^2), and leaky(u) = relu(u) - slope * relu(-u)."""
        for theirs, ours, outgoing in (("relu", "leaky_relu", LEAKY_SLOPE), ("leaky_relu", "relu", -LEAKY_SLOPE)):
            with self.subTest(teacher=theirs):
                teacher, model = network(theirs), network(ours, "mlp_3_8_2")
                hidden, scale = teacher.fc_layers[0], 1 - LEAKY_SLOPE**2 if ours == "leaky_relu" else 1
                model.fc_layers[0].weight.data = torch.cat([hidden.weight.data, -hidden.weight.data])
                model.fc_layers[0].bias.data = torch.cat([hidden.bias.data, -hidden.bias.data])
                model.fc.weight.data = torch.cat([teacher.fc.weight.data, outgoing * teacher.fc.weight.data], 1) / scale
                model.fc.bias.data = teacher.fc.bias.data
                certificate = self.certify(model, teacher)
                self.assertLess(certificate.residual, 1e-14)
                self.assert_refused(certificate)

    def test_opposite_neurons_are_refused_under_a_sign_symmetry(self):
        for act_fun in ("relu", "softplus", "tanh"):
            with self.subTest(act_fun):
                model = network(act_fun)
                layer = model.fc_layers[0]
                layer.weight.data[3], layer.bias.data[3] = -layer.weight.data[0], -layer.bias.data[0]
                certificate = self.certify(model)
                self.assertLess(certificate.separation, 1e-12)
                self.assert_refused(certificate)

    def test_opposite_neurons_are_distinct_without_a_sign_symmetry(self):
        model = network("g")
        layer = model.fc_layers[0]
        layer.weight.data[3], layer.bias.data[3] = -layer.weight.data[0], -layer.bias.data[0]
        certificate = self.certify(model)
        self.assertGreater(certificate.separation, 0.1)
        self.assertIs(certificate.accepted, True)

    def test_separation_is_the_smallest_angle(self):
        model = network("g", "mlp_1_2_1")
        vectors = torch.tensor([[1.0, 0.0], [math.cos(0.3), math.sin(0.3)]], dtype=torch.float64)
        model.fc_layers[0].weight.data, model.fc_layers[0].bias.data = vectors[:, :1], vectors[:, 1]
        self.assertAlmostEqual(self.certify(model).separation, 0.3)

    def test_too_few_answers_to_exclude_a_rival_network_are_refused(self):
        """Half of the answers are fewer than the unknowns, so a rival network with other weights fits them."""
        certificate = self.certify(network(), count=16)
        self.assertEqual((certificate.rank, certificate.residual), (certificate.unknowns, 0))
        self.assertGreater(certificate.disagreement, 1e-3)
        self.assert_refused(certificate)


class TestScalesOfOutputs(CertificateTestCase):
    """The first two neurons feed the first output alone, the others the second output, which may be of a much smaller scale."""

    def teacher(self, scale):
        model = network()
        model.fc.weight.data[0, 2:], model.fc.weight.data[1, :2] = 0, 0
        model.fc.weight.data[1] *= scale
        model.fc.bias.data[1] *= scale
        return model

    def test_a_network_without_the_neurons_of_a_weak_output_is_refused(self):
        for scale in (1.0, 1e-6, 1e-12, 1e12):
            with self.subTest(scale):
                teacher, model = self.teacher(scale), network(name="mlp_3_2_2")
                hidden, last = teacher.layer_vectors()
                mean = teacher(queries(300)).mean(0)[1].detach()
                last[1] = torch.tensor([0, 0, 0, 0, mean])
                model.load_layer_vectors([hidden[:2], last[:, [0, 1, 4]]])
                certificate = self.certify(model, teacher)
                self.assertGreater(certificate.residual, 0.1)
                self.assert_refused(certificate)

    def test_a_slightly_wrong_weight_of_a_weak_output_is_refused(self):
        teacher = self.teacher(1e-12)
        model = copy.deepcopy(teacher)
        model.fc.weight.data[1, 2] *= 1 + 1e-5
        certificate = self.certify(model, teacher)
        self.assertGreater(certificate.weight_error_bound, 1e-6)
        self.assert_refused(certificate)

    def test_the_right_network_is_accepted_at_any_scale(self):
        for scale in (1.0, 1e-6, 1e-12, 1e12):
            with self.subTest(scale):
                self.assertIs(self.certify(self.teacher(scale)).accepted, True)

    def test_a_constant_output_does_not_refuse_the_right_network(self):
        model = self.teacher(1.0)
        model.fc.weight.data[1, :] = 0
        certificate = self.certify(model)
        self.assertEqual((certificate.residual, certificate.held_out_residual), (0, 0))
        self.assertLess(certificate.rank, certificate.unknowns)  # the neurons of that output show in no answer


class TestPrecision(CertificateTestCase):
    """Networks that are fitted by least squares to answers with errors."""

    def certify_fit(self, teacher, change_answers, start=None, given=None, count=1000):
        """The certificate of a network that starts from another one, by default the teacher, and is fitted to a teacher's answers."""
        loaders = []
        for seed, size in ((0, count), (1, 200)):
            examples = queries(size, teacher.sizes[0], seed)
            loaders.append(DataLoader(Dataset(examples, change_answers(teacher(examples).detach())), size, seed=5, dtype=torch.float64))
        model = copy.deepcopy(start or teacher)
        optimizer, objective = LevenbergMarquardt(model), Objective(model, loaders[0].examples, loaders[0].labels)
        for _ in range(20):
            optimizer.step(objective)
        session = session_of("students_mlp(2)_3_4_2", Loaders(*loaders), self.root)
        session = dataclasses.replace(session, precision=Answers.of(session.answers, given))
        certificate = certify(session, as_if_recovered(model))
        pairs = zip(model.layer_vectors(), teacher.layer_vectors(), strict=True)
        deviation = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs) if start is None else math.inf
        return certificate, deviation

    def noisy(self, size, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return lambda answers: answers + size * torch.randn(answers.shape, generator=generator, dtype=torch.float64)

    def test_right_networks_are_accepted_to_the_precision_of_their_answers(self):
        changes = {
            "noise": self.noisy(1e-3),
            "float32": lambda answers: answers.float().double(),
            "decimals": lambda answers: answers.round(decimals=4),
        }
        for name, change in changes.items():
            for act_fun in ("tanh", "g"):
                with self.subTest(name, act_fun=act_fun):
                    certificate, deviation = self.certify_fit(network(act_fun), change)
                    self.assertEqual((certificate.accepted, certificate.accepted_to_precision), (False, True))
                    self.assertLess(deviation, certificate["error_95"])
                    self.assertGreater(deviation, certificate["error_95"] / 100)

    def test_wrong_networks_are_not_accepted_to_any_precision(self):
        teacher = network("tanh")
        wrong = {"a neuron less": network("tanh", "mlp_3_3_2"), "another activation function": network("softplus", "mlp_3_6_2", seed=2)}
        for name, start in wrong.items():
            for change in (self.noisy(1e-3), lambda answers: answers.float().double()):
                with self.subTest(name):
                    certificate, _ = self.certify_fit(teacher, change, start)
                    self.assertEqual((certificate.accepted, certificate.accepted_to_precision), (False, False))

    def test_errors_above_a_stated_precision_are_refused(self):
        for given, accepted in ((None, True), ("noise:0.001", True), ("noise:1e-5", False), ("decimals:4", False), ("float64", False)):
            with self.subTest(given):
                certificate, _ = self.certify_fit(network(), self.noisy(1e-3), given=given)
                self.assertIs(certificate.accepted_to_precision, accepted)

    def test_neurons_that_no_answer_tells_are_named(self):
        teacher = network("tanh")
        teacher.fc.weight.data[:, 2] = 0
        certificate, _ = self.certify_fit(teacher, self.noisy(1e-3))
        self.assertEqual((certificate.accepted_to_precision, certificate.fits), (False, True))
        self.assertIn("neuron 2", certificate.open)

    def test_too_few_answers_are_refused(self):
        certificate, _ = self.certify_fit(network(), self.noisy(1e-3), count=30)
        self.assertIs(certificate.accepted_to_precision, False)


class TestSigns(CertificateTestCase):
    def step(self, act_fun, turn=False):
        """A network whose first two neurons are `s(u) - s(v)`; with `turn`, the same function with both neurons negated."""
        model = network(act_fun, "mlp_2_4_1", seed=1)
        layer = model.fc_layers[0]
        layer.weight.data[1] = layer.weight.data[0]
        layer.bias.data[:2] = torch.tensor([0.7, -0.4])
        model.fc.weight.data[0, :2] = torch.tensor([1.0, -1.0])
        if turn:
            # s(u) - s(v) = s(-u) - s(-v) - slope * (u - v)
            model.fc.bias.data -= symmetries[act_fun].slope * (layer.bias.data[0] - layer.bias.data[1])
            layer.weight.data[:2], layer.bias.data[:2] = -layer.weight.data[:2], -layer.bias.data[:2]
        return model

    def test_neurons_with_a_joint_sign_flip_are_refused(self):
        for act_fun in ("relu", "leaky_relu", "softplus", "gelu", "silu"):
            with self.subTest(act_fun):
                model, turned = self.step(act_fun), self.step(act_fun, turn=True)
                torch.testing.assert_close(turned(queries(50, 2)), model(queries(50, 2)), rtol=0, atol=1e-13)
                certificate = self.certify(model)
                self.assertEqual((certificate.rank, certificate.signs_settled), (certificate.unknowns, False))
                self.assertGreater(certificate.separation, 0.1)
                self.assert_refused(certificate)

    def test_functions_without_a_sign_law_have_no_joint_sign_flip(self):
        for act_fun in ("tanh", "sigmoid", "g"):
            with self.subTest(act_fun):
                self.assertIs(self.certify(self.step(act_fun)).signs_settled, True)

    def test_a_joint_sign_flip_of_any_size_is_detected(self):
        """Eight neurons with two inputs and one output, where the neurons of a random subset can be negated together."""
        generator = torch.Generator().manual_seed(0)
        for size in range(2, 9):
            incoming = torch.randn(8, 3, generator=generator, dtype=torch.float64)
            following = torch.randn(1, 9, generator=generator, dtype=torch.float64)
            self.assertFalse(has_joint_sign_flip(incoming, following, SEPARATION))
            places = torch.randperm(8, generator=generator)[:size]
            contributions = following[0, places, None] * incoming[places, :-1]
            last = places[-1]
            incoming[last, :-1] -= contributions.sum(0) / following[0, last]
            self.assertTrue(has_joint_sign_flip(incoming, following, SEPARATION))

    def test_too_many_neurons_to_examine_count_as_a_joint_sign_flip(self):
        generator = torch.Generator().manual_seed(0)
        for neurons, doubt in ((18, False), (19, True)):
            incoming = torch.randn(neurons, 3, generator=generator, dtype=torch.float64)
            following = torch.randn(1, neurons + 1, generator=generator, dtype=torch.float64)
            self.assertIs(has_joint_sign_flip(incoming, following, SEPARATION), doubt)


if __name__ == "__main__":
    unittest.main()
