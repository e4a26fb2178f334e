"""The rank of the Jacobian, the bound on errors of weights, and what answers leave open, on known networks."""

import copy
from unittest import mock

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction.certification import determination as determining
from extraction.certification.checks import WEIGHT_ERROR
from extraction.certification.determination import Determined, determination
from extraction.symmetry import symmetries
from extraction.test.test_certificate import CertificateTestCase, network, queries


def jacobian_of(model, examples):
    """The Jacobian of the outputs by torch, with a column for each parameter, in the order of the parameters."""
    names, values = zip(*model.named_parameters(), strict=True)

    def outputs(*parts):
        return torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (examples,))

    return torch.cat([part.flatten(2) for part in torch.autograd.functional.jacobian(outputs, values)], 2).flatten(0, 1).numpy()


class TestDetermination(CertificateTestCase):
    def assert_rank_is_that_of_the_jacobian(self, model, change_queries=lambda x: x, count=300):
        """Compares the rank with that of numpy, which uses singular values; returns the certificate."""
        certificate = self.certify(model, change_queries=change_queries, count=count)
        self.assertEqual(certificate.rank, np.linalg.matrix_rank(jacobian_of(model, change_queries(queries(count, model.sizes[0])))))
        return certificate

    def assert_undetermined(self, certificate):
        self.assertLess(certificate.rank, certificate.unknowns)
        self.assertIsNone(certificate.weight_error_bound)
        self.assertIsNone(certificate.disagreement)
        self.assert_refused(certificate)

    def test_answers_to_random_queries_determine_all_weights(self):
        for act_fun in ("tanh", "relu", "g"):
            with self.subTest(act_fun):
                certificate = self.assert_rank_is_that_of_the_jacobian(network(act_fun))
                self.assertEqual(certificate.rank, certificate.unknowns)

    def test_a_constant_input_leaves_its_weights_undetermined(self):
        for value in (0.0, 1.5):
            for act_fun in ("tanh", "relu", "g"):

                def change_queries(x, value=value):
                    return torch.cat([torch.full_like(x[:, :1], value), x[:, 1:]], 1)

                with self.subTest(act_fun=act_fun, value=value):
                    certificate = self.assert_rank_is_that_of_the_jacobian(network(act_fun), change_queries)
                    self.assertEqual(certificate.rank, certificate.unknowns - 4)
                    self.assert_undetermined(certificate)

    def test_a_neuron_that_is_never_active_is_undetermined(self):
        model = network("relu")
        model.fc_layers[0].bias.data[2] = -100
        certificate = self.certify(model)
        self.assertEqual(
            certificate.rank, certificate.unknowns - 5
        )  # three weights, the bias and two outgoing weights, less one for the scale
        self.assert_undetermined(certificate)

    def test_all_but_the_bias_of_a_neuron_that_is_always_active_is_determined(self):
        model = network("relu")
        model.fc_layers[0].bias.data[2] = 100
        certificate = self.assert_rank_is_that_of_the_jacobian(model)
        self.assertEqual(certificate.rank, certificate.unknowns - 1)
        self.assertLess(certificate.disagreement, 1e-8)
        self.assert_refused(certificate)

    def test_weights_determined_only_by_a_query_at_a_kink_count_as_undetermined(self):
        """The second input is zero for all queries that activate the neuron, except one."""
        along = torch.linspace(0.1, 2, 15, dtype=torch.float64)
        plain = torch.stack([along, torch.zeros(15)], 1)
        beside = torch.stack([-torch.ones(15), along / 4], 1)
        model = network("relu", "mlp_2_1_1")
        model.fc_layers[0].weight.data[0], model.fc_layers[0].bias.data[0], model.fc.weight.data[0, 0] = torch.tensor([1.0, 2.0]), 0, 1
        for touch, rank in ((0.5, 3), (0.51, 4)):  # the kink of the neuron is at 0.5
            touching = torch.tensor([[-1.0, touch + 1e-15]], dtype=torch.float64)
            x = torch.cat([plain, beside[beside[:, 1] < 0.45], touching])
            self.assertEqual(np.linalg.matrix_rank(jacobian_of(model, x)), 4)
            loader = DataLoader(Dataset(x, model(x).detach()), len(x), dtype=torch.float64)
            self.assertEqual(determination(model, symmetries["relu"], loader)[0], rank)

    def test_weights_of_a_neuron_active_except_at_a_query_near_its_kink_are_undetermined(self):
        x = queries(20, 2).abs() + 0.1
        model = network("relu", "mlp_2_1_1")
        model.fc_layers[0].weight.data[0], model.fc_layers[0].bias.data[0], model.fc.weight.data[0, 0] = torch.ones(2), 0, 1
        for over, rank in ((-1e-15, 3), (-0.01, 4)):
            examples = torch.cat([x, torch.tensor([[over, 0.0]], dtype=torch.float64)])
            loader = DataLoader(Dataset(examples, model(examples).detach()), len(examples), dtype=torch.float64)
            self.assertEqual(determination(model, symmetries["relu"], loader)[0], rank)

    def test_a_spectrum_is_taken_from_an_earlier_step_for_the_same_network_and_queries_only(self):
        model, x = network("relu"), queries(100, 3)
        loader = DataLoader(Dataset(x, model(x).detach()), len(x), dtype=torch.float64)
        known = Determined.of(model, symmetries["relu"], loader)
        self.assertEqual(determination(model, symmetries["relu"], loader), determination(model, symmetries["relu"], loader, 0, known))
        with mock.patch.object(determining, "_spectrum", side_effect=AssertionError):
            determination(model, symmetries["relu"], loader, 0, known)
            self.assertRaises(AssertionError, determination, model, symmetries["relu"], loader, 1, known)
            fewer = DataLoader(Dataset(x[:99], loader.labels[:99]), 99, dtype=torch.float64)
            self.assertRaises(AssertionError, determination, model, symmetries["relu"], fewer, 0, known)
            model.fc.bias.data[0] += 1e-12
            self.assertRaises(AssertionError, determination, model, symmetries["relu"], loader, 0, known)

    def test_a_neuron_without_outgoing_weights_is_undetermined(self):
        for act_fun in ("tanh", "relu"):
            with self.subTest(act_fun):
                model = network(act_fun)
                model.fc.weight.data[:, 1] = 0
                self.assert_undetermined(self.certify(model))

    def test_fewer_answers_than_unknowns_are_refused(self):
        certificate = self.assert_rank_is_that_of_the_jacobian(network(), count=12)
        self.assertEqual((certificate.equations, certificate.unknowns), (24, 26))
        self.assert_undetermined(certificate)

    def test_a_linear_network_is_undetermined(self):
        self.assert_undetermined(self.assert_rank_is_that_of_the_jacobian(network("identity")))

    def test_the_weight_error_bound_holds_for_a_fit_to_slightly_wrong_answers(self):
        for act_fun in ("tanh", "g"):
            for seed in range(3):
                with self.subTest(act_fun=act_fun, seed=seed):
                    model = network(act_fun, seed=seed)
                    noise = 1e-9 * torch.randn(300, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
                    step, *_ = np.linalg.lstsq(jacobian_of(model, queries(300)), noise.flatten().numpy())
                    fitted = copy.deepcopy(model)
                    vector_to_parameters(parameters_to_vector(model.parameters()) + torch.from_numpy(step), fitted.parameters())
                    pairs = zip(fitted.layer_vectors(), model.layer_vectors(), strict=True)
                    deviation = max(float((ours - true).abs().max() / ours.abs().max()) for ours, true in pairs)
                    certificate = self.certify(fitted, model, change_answers=lambda y, noise=noise: y + noise[: len(y)])
                    self.assertGreater(deviation, 1e-10)
                    self.assertLess(deviation, certificate.weight_error_bound)
                    self.assertLess(certificate.weight_error_bound, WEIGHT_ERROR)
