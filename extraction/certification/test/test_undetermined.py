"""Columns whose weights the answers leave open, in planted networks."""

import torch

from datasets.base import Loaders
from extraction.certification.undetermined import certified, open_columns
from extraction.preparation.coordinates import Coordinates
from extraction.test.known_networks import answered, network, queries, session_of
from extraction.test.test_certificate import as_if_recovered
from testing.test_case import TestCase


def rare_queries():
    """Queries with four columns; the third is 0.5 in all but three of them."""
    x = queries(300).clone()
    x[:, 2] = 0.5
    x[[3, 20, 40], 2] = torch.tensor([2.0, -2.0, 1.5]).double()
    return x


class TestOpenColumns(TestCase):
    def columns_of(self, x, act_fun="tanh", name="mlp_4_8_2"):
        """The open columns of a planted network, as seen through its coordinates."""
        inputs, teacher = Coordinates.of_inputs(x), network(name, act_fun)
        inside = network(name, act_fun)
        first, *others = teacher.layer_vectors()
        inside.load_layer_vectors([inputs.unfold_inputs(first), *others])
        return open_columns(inside, answered(inside, inputs.apply(x), 300).train, inputs, x.mode(0).values)

    def test_three_queries_with_two_outputs_leave_the_weights_of_eight_neurons_open(self):
        x = rare_queries()
        for act_fun in ("tanh", "leaky_relu", "softplus"):
            self.assertEqual(self.columns_of(x, act_fun), [2], act_fun)
        self.assertEqual(self.columns_of(x, "leaky_relu", "mlp_4_8_5_2"), [2])

    def test_nothing_is_open_with_enough_queries(self):
        x = rare_queries()
        x[:60, 2] = queries(60, 1)[:, 0]
        for act_fun in ("tanh", "leaky_relu"):
            self.assertEqual(self.columns_of(x, act_fun), [])

    def test_weights_that_are_open_for_another_reason_are_no_matter_of_columns(self):
        x, twins = queries(300), network("mlp_4_8_2")
        first, last = twins.layer_vectors()
        first[1] = first[0]
        twins.load_layer_vectors([first, last])
        self.assertEqual(open_columns(twins, answered(twins, x, 300).train, Coordinates.identity(x), x[0]), [])


class TestCertified(TestCase):
    def test_the_rest_of_the_network_is_accepted_and_the_column_is_named(self):
        x, teacher = rare_queries(), network("mlp_4_8_2")
        loaders = Loaders(answered(teacher, x, 300).train, answered(teacher, x[100:200], 300).test)
        session = session_of("students_mlp(2)_4_32_2", loaders, self.root)
        rest, result, certificate = certified(session, as_if_recovered(teacher))
        self.assertTrue(certificate.accepted)
        self.assertEqual((result.network.sizes, certificate["rank"]), ([3, 8, 2], 8 * 4 + 18))
        self.assertIs(result.unscaled.network, teacher)
        self.assertEqual(
            rest.scaling.remarks(),
            ["column 2 of X varies in 3 queries only, which are left out with the weights from it"],
        )
        self.assertTrue(certificate.with_open(rest.scaling.open_weights(8)).lacks_only_rank)

    def test_a_column_that_few_of_many_queries_vary_is_told_where_these_leave_some_to_spare(self):
        """An examination has 165 of these queries, and those that tell what the others leave open: two numbers each, for eight weights."""
        teacher = network("mlp_4_8_2")
        for rare, told in ((4, False), (16, True)):
            x = queries(1000).clone()
            x[:, 2] = 0.5
            x[torch.arange(rare) * 50, 2] += queries(rare, 1)[:, 0]
            loaders = Loaders(answered(teacher, x, 1000).train, answered(teacher, x[100:200], 300).test)
            session = session_of("students_mlp(2)_4_32_2", loaders, self.root)
            rest, _, certificate = certified(session, as_if_recovered(teacher))
            self.assertTrue(certificate.accepted)
            self.assertEqual(rest.scaling is None, told)
