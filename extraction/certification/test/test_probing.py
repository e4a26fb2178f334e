"""The rank of large networks, against dense factorisations of small ones."""

import math
import unittest
import unittest.mock

import torch

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction import certificate
from extraction.certification import probing
from extraction.symmetry import symmetries
from extraction.test.test_certificate import CertificateTestCase, network
from testing.planted import draw, network_of

SIZES = [6, 4, 2]


def queries(count=200):
    """Queries of standard normal inputs."""
    return torch.randn(count, SIZES[0], generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def planted(act_fun, examples, sizes=SIZES):
    """A network whose neurons switch on the queries."""
    return network_of(draw(sizes, act_fun, examples, torch.Generator().manual_seed(4)))


def eigenvalues(model, examples):
    """Those of J'J with columns of unit length, the largest first; by automatic differentiation, query by query."""
    rows = []
    for example in examples:
        for output in model(example[None])[0]:
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(output, list(model.parameters()), retain_graph=True)]))
    jacobian = torch.stack(rows)
    return torch.linalg.svdvals(jacobian / jacobian.norm(dim=0)).square()


class TestSmallestCurvature(unittest.TestCase):
    def test_the_bound_is_below_the_smallest_eigenvalue_and_not_far_below(self):
        for act_fun, sizes in (("tanh", SIZES), ("relu", SIZES), ("relu", [6, 5, 4, 2]), ("gelu", [6, 5, 4, 2])):
            with self.subTest(act_fun=act_fun):
                examples = queries()
                model = planted(act_fun, examples, sizes)
                found = probing.smallest_curvature(model, symmetries[act_fun], examples, 0)
                scales = sum(model.sizes[1:-1]) if act_fun == "relu" else 0
                self.assertEqual(found.scales, scales)
                *_, least = eigenvalues(model, examples)[: len(found.lengths) - scales].tolist()
                self.assertLessEqual(found.value, least)
                self.assertGreater(found.value, least / 1000)
                self.assertTrue(found.has_full_rank)

    def test_queries_at_a_kink_do_not_count(self):
        examples = queries(20)
        model = planted("relu", examples)
        layer = model.fc_layers[0]
        layer.bias.data[1] = -(layer.weight.data[1] @ examples[7])
        clear = probing.away_from_kinks(model, examples)
        self.assertEqual(torch.nonzero(~clear)[:, 0].tolist(), [7])

    def test_an_open_combination_of_weights_is_never_missed(self):
        examples = queries()
        model = planted("tanh", examples)
        hidden, last = model.layer_vectors()
        twins = hidden.clone()
        twins[1] = twins[0]
        unused = last.clone()
        unused[:, 0] = 0.0
        for layers in ([twins, last], [hidden, unused]):
            model.load_layer_vectors(layers)
            self.assertFalse(probing.smallest_curvature(model, symmetries["tanh"], examples, 0).has_full_rank)
        model.load_layer_vectors([hidden, last])
        for flat in (examples * torch.tensor([0.0, 1, 1, 1, 1, 1]), examples[:, [1, 1, 2, 3, 4, 5]], examples[:15]):
            self.assertFalse(probing.smallest_curvature(model, symmetries["tanh"], flat, 0).has_full_rank)


class TestLargeDetermination(unittest.TestCase):
    def test_the_bound_of_the_weights_holds_for_slightly_wrong_answers(self):
        examples = queries(300)
        for act_fun in ("tanh", "relu"):
            with self.subTest(act_fun=act_fun):
                model = planted(act_fun, examples)
                right = [layer.clone() for layer in model.layer_vectors()]
                answers = model(examples).detach()
                wrong = [layer.clone() for layer in right]
                wrong[-1][0, 0] += 1e-9
                model.load_layer_vectors(wrong)
                loader = DataLoader(Dataset(examples, answers), len(examples), dtype=torch.float64)
                rank, bound = probing.large_determination(model, symmetries[act_fun], loader)
                scaled = SIZES[1] if act_fun == "relu" else 0
                self.assertEqual(rank, sum(parameter.numel() for parameter in model.parameters()) - scaled)
                self.assertGreaterEqual(bound, 1e-9 / float(right[-1].abs().max()))
                self.assertTrue(math.isfinite(bound))


class TestCertificate(CertificateTestCase):
    """The certificate of small networks, as if they were too large for a dense factorisation."""

    def certificate_of(self, model, **options):
        with unittest.mock.patch.object(certificate, "DENSE_PARAMETERS", 0):
            return self.certify(model, **options)

    def test_the_true_network_is_accepted(self):
        for act_fun in ("tanh", "relu"):
            with self.subTest(act_fun=act_fun):
                found = self.certificate_of(network(act_fun))
                self.assertTrue(found.accepted)
                self.assertEqual(found.rank, found.unknowns)

    def test_networks_whose_weights_the_answers_do_not_determine_are_refused(self):
        dead, unused = network("relu"), network("tanh")
        dead.fc_layers[0].bias.data[2] = -100
        unused.fc.weight.data[:, 1] = 0
        for model, options in ((dead, {}), (unused, {}), (network("tanh"), {"count": 12})):
            found = self.certificate_of(model, **options)
            self.assert_refused(found)
            self.assertIsNone(found.rank)

    def test_a_slightly_wrong_network_is_refused(self):
        model, teacher = network("tanh"), network("tanh")
        model.fc.bias.data[0] += 1e-7
        self.assert_refused(self.certificate_of(model, teacher=teacher))


if __name__ == "__main__":
    unittest.main()
