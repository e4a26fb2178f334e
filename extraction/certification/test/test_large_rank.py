"""The rank of large networks, against singular values of the whole Jacobian of small ones."""

import unittest

import torch

from extraction.certification import large_rank
from extraction.certification.checks import Certificate
from extraction.certification.scalings import Scalings
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

    def test_networks_whose_first_layer_has_dependent_rows_have_no_design(self):
        self.assertIsNone(large_rank.Design.of(known.layers((3, 4, 2), "tanh"), 1.0))
        for act_fun in ("tanh", "relu"):
            first, last = known.layers((8, 5, 2), act_fun).vectors
            dependent = torch.cat([first[:4], first[:4].sum(0, keepdim=True)])
            self.assertIsNone(large_rank.Design.of(known.layers((8, 5, 2), act_fun).replace(dependent, last), 1.0))


class TestKinks(unittest.TestCase):
    def test_the_bound_is_below_the_smallest_singular_value_that_is_not_of_a_scaling(self):
        for act_fun, sizes in (("relu", (12, 5, 2)), ("leaky_relu", (9, 6, 4, 2)), ("relu", (8, 5, 4, 1)), ("leaky_relu:0.2", (5, 5, 3))):
            with self.subTest(act_fun=act_fun, sizes=sizes):
                network = known.layers(sizes, act_fun)
                design = large_rank.Design.of(network, 1.0)
                answers, scaled = network.pre_activations(design.queries), large_rank.in_units(network, design.step)
                found = large_rank.determination(network, design, answers)
                hidden, deep = sum(sizes[1:-1]), len(sizes) > 3
                inner = spectrum(large_rank.inner_network(scaled), design.sums, answers.std(0))
                whole = spectrum(scaled, design.queries, answers.std(0))
                self.assertTrue(found.is_full)
                self.assertGreater(whole[-1 - hidden], 1e-6 * whole[0])
                self.assertTrue(whole[-hidden] < 1e-12 * whole[0], "one for each scaling")
                self.assertLess(found.smallest, inner[-1 - hidden] * (10 if deep else 1))  # the output layer is eliminated
                self.assertGreater(found.smallest, inner[-1 - hidden] / 300)
                self.assertLess(found.bound, 1e-7)

    def test_scales_of_neurons_do_not_matter(self):
        network = known.layers((9, 6, 4, 2), "leaky_relu")
        factors = torch.tensor([1e-3, 7.0, 1e4, 1.0, 0.2, 30.0], dtype=torch.float64)
        second = torch.cat([network.vectors[1][:, :-1] / factors, network.vectors[1][:, -1:]], 1)
        scaled = network.replace(network.vectors[0] * factors[:, None], second, network.vectors[2])
        found = []
        for each in (network, scaled):
            design = large_rank.Design.of(each, 1.0)
            found.append(large_rank.determination(each, design, each.pre_activations(design.queries)).smallest)
        self.assertAlmostEqual(found[0], found[1], delta=1e-3 * found[0])

    def test_what_no_answer_tells_is_not_determined(self):
        first, last = known.layers((8, 5, 2), "relu").vectors
        second, third = known.layers((5, 3, 2), "relu", seed=4).vectors
        never = -second[:1].abs(), second[1:]  # active nowhere
        networks = {
            "unseen": (first, last * torch.tensor([1.0, 1, 0, 1, 1, 1])),
            "idle": (first, torch.cat(never), third),
            "twins": (first, torch.cat([second[:2], 2 * second[1:2]]), third),
        }
        for name, vectors in networks.items():
            with self.subTest(name):
                network = known.layers((8, 5, 2), "relu").replace(*vectors)
                design = large_rank.Design.of(network, 1.0)
                found = large_rank.determination(network, design, network.pre_activations(design.queries))
                self.assertTrue(found is None or not found.is_full)

    def test_the_projection_leaves_nothing_along_scalings(self):
        network = known.layers((4, 3, 5, 2), "relu")
        lengths = [known.normal(*vectors.shape, seed=1).abs() for vectors in network.vectors]
        for count in (2, 3):
            changes = []
            for depth, neuron in [*((0, each) for each in range(3)), *((1, each) for each in range(5))]:
                change = [torch.zeros_like(vectors) for vectors in network.vectors]
                change[depth][neuron] = network.vectors[depth][neuron]
                if depth + 1 < count:
                    change[depth + 1][:, neuron] = -network.vectors[depth + 1][:, neuron]
                changes.append(torch.cat([(each * length).flatten() for each, length in zip(change, lengths, strict=True)]))
            directions = torch.stack(changes)
            vector = [known.normal(*vectors.shape, seed=2) for vectors in network.vectors]
            given = torch.cat([each.flatten() for each in Scalings(network.vectors, lengths, count).orthogonal(vector)])
            whole = torch.cat([each.flatten() for each in vector])
            torch.testing.assert_close(given, whole - torch.linalg.pinv(directions) @ (directions @ whole))


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
