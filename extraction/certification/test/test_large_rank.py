"""The rank of large networks, against singular values of the whole Jacobian of small ones."""

import unittest

import torch

from extraction.certification import large_rank
from extraction.certification.checks import Certificate
from extraction.derivatives.test import known


def spectrum(network, queries, spread):
    """All singular values of the Jacobian of the outputs in units of their spread, with columns of unit length."""

    def outputs(*vectors):
        return (network.replace(*vectors).pre_activations(queries) / spread).flatten()

    jacobian = torch.cat(
        [part.flatten(1) for part in torch.autograd.functional.jacobian(outputs, tuple(network.vectors), vectorize=True)], 1
    )
    return torch.linalg.svdvals(torch.nn.functional.normalize(jacobian, dim=0))


class TestDetermination(unittest.TestCase):
    def test_the_bound_is_below_the_smallest_singular_value_and_the_rank_is_full(self):
        for act_fun, sizes in (("tanh", (12, 5, 2)), ("gelu", (9, 4, 3)), ("sigmoid", (9, 6, 4, 2)), ("tanh", (4, 4, 2))):
            with self.subTest(act_fun=act_fun, sizes=sizes):
                network = known.layers(sizes, act_fun)
                design = large_rank.Design.of(network, 1.0)
                answers = network.pre_activations(design.queries)
                found = large_rank.determination(network, design, answers)
                inner = spectrum(large_rank.inner_network(network), design.sums, answers.std(0))
                whole = spectrum(network, design.queries, answers.std(0))
                self.assertTrue(found.is_full)
                self.assertGreater(whole[-1], 1e-6 * whole[0])
                self.assertEqual(len(whole), sum(vectors.numel() for vectors in network.vectors))
                self.assertLess(found.smallest, inner[-1] * (1 if len(sizes) == 3 else 10))  # the output layer is eliminated
                self.assertGreater(found.smallest, inner[-1] / 300)
                self.assertLess(found.bound, 1e-7)

    def test_the_outer_queries_leave_the_sums_of_the_first_layer_as_they_are(self):
        network = known.layers((7, 3, 2), "tanh")
        design = large_rank.Design.of(network, 2.0)
        sums = design.queries @ network.vectors[0][:, :-1].T + network.vectors[0][:, -1]
        count = len(design.sums)
        torch.testing.assert_close(sums[:count], design.sums)
        torch.testing.assert_close(sums[count:].unflatten(0, (4, design.bases)), design.sums[: design.bases].expand(4, -1, -1))

    def test_a_neuron_that_no_answer_shows_is_not_determined(self):
        first, last = known.layers((8, 4, 2), "tanh").vectors
        last[:, 1] = 0
        network = known.layers((8, 4, 2), "tanh").replace(first, last)
        design = large_rank.Design.of(network, 1.0)
        found = large_rank.determination(network, design, network.pre_activations(design.queries))
        self.assertTrue(found is None or not found.is_full)

    def test_errors_of_the_network_bound_those_of_its_weights(self):
        network = known.layers((8, 4, 2), "gelu")
        design = large_rank.Design.of(network, 1.0)
        answers = network.pre_activations(design.queries)
        near = network.replace(network.vectors[0] + 1e-6 * known.normal(4, 9), network.vectors[1])
        bound = large_rank.determination(near, design, answers).bound
        self.assertGreater(bound, float((near.vectors[0] - network.vectors[0]).abs().max() / network.vectors[0].abs().max()))

    def test_networks_with_kinks_or_with_more_neurons_than_inputs_have_no_design(self):
        self.assertIsNone(large_rank.Design.of(known.layers((8, 4, 2), "relu"), 1.0))
        self.assertIsNone(large_rank.Design.of(known.layers((3, 4, 2), "tanh"), 1.0))


class TestChecks(unittest.TestCase):
    def test_fresh_answers_and_the_singular_value_take_the_place_of_a_second_network(self):
        figures = {"residual": 1e-14, "held_out_residual": 1e-14, "equations": 9, "unknowns": 8, "rank": 8, "weight_error_bound": 1e-11}
        figures |= {"separation": 0.5, "signs_settled": True, "agreement": None, "disagreement": None}
        self.assertFalse(Certificate.of(figures).accepted)
        large = {"smallest_singular_value": 1e-3, "far_error": 1e-12}
        self.assertTrue(Certificate.of(figures | large).accepted)
        self.assertFalse(Certificate.of(figures | large | {"far_error": 1e-3}).accepted)
        self.assertFalse(Certificate.of(figures | large | {"rank": None}).accepted)


if __name__ == "__main__":
    unittest.main()
