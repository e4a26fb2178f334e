"""Whole networks from derivatives."""

import unittest
from unittest import mock

import torch

from extraction.derivatives import upper
from extraction.derivatives.questions import Questions
from extraction.derivatives.recovering import as_candidate, recover, recover_inside
from extraction.derivatives.result import Lacking
from extraction.derivatives.test import known
from extraction.evaluation import score


class TestShallow(known.RecoveryTestCase):
    def test_a_network_is_found_without_its_width_and_activation_function(self):
        for act_fun, sizes in (("gelu", (12, 5, 3)), ("g", (8, 4, 2)), ("softplus", (7, 3, 1))):
            with self.subTest(act_fun=act_fun, sizes=sizes):
                self.assert_found(known.layers(sizes, act_fun), 1e-12)

    def test_a_budget_that_is_spent_is_what_is_lacking(self):
        asked = known.asked(known.layers((12, 5, 3), "gelu"), budget=400)
        result = recover(asked)
        self.assertIsNone(result.layers)
        self.assertRegex(result.lacks[0], "budget of 400")
        self.assertLessEqual(asked.count.asked, 400)

    def test_an_unknown_activation_function_is_said(self):
        first, last = known.layers((8, 4, 3), "tanh").vectors
        asked = Questions(lambda x: torch.sin(2 * x @ first[:, :-1].T + first[:, -1]) @ last[:, :-1].T, 8)
        result = recover(asked)
        self.assertIsNone(result.layers)
        self.assertRegex(result.lacks[0], "activation function is unknown")

    def test_a_relu_network_is_found_up_to_the_scales_of_its_neurons(self):
        for act_fun, sizes in (("relu", (12, 5, 1)), ("leaky_relu", (8, 5, 3)), ("relu", (4, 6, 2))):
            with self.subTest(act_fun=act_fun, sizes=sizes):
                self.assert_found(known.layers(sizes, act_fun), 1e-11)

    def test_answers_that_are_not_finite_are_said(self):
        result = recover(Questions(lambda x: x / 0, 3))
        self.assertEqual(result.lacks, ("answers are not finite",))


class TestDeep(known.RecoveryTestCase):
    def test_two_hidden_layers_of_tanh_are_found_without_their_widths(self):
        self.assert_found(known.layers((9, 6, 4, 2), "tanh"), 1e-11)

    def test_a_second_layer_that_is_not_narrower_is_found_by_students_behind_the_first(self):
        with mock.patch.multiple(upper, WIDTHS=((5,),), HEATS=((12, 60), (4, 300))):
            self.assert_found(known.layers((6, 2, 3, 2), "tanh", seed=1), 1e-9)

    def test_tanh_is_given_as_sigmoid_where_that_is_the_candidate(self):
        network = known.layers((4, 3, 2), "tanh")
        sigmoid = as_candidate(network, ("gelu", "sigmoid"))
        self.assertEqual(sigmoid.act_fun, "sigmoid")
        torch.testing.assert_close(sigmoid.pre_activations(known.normal(9, 4)), network.pre_activations(known.normal(9, 4)))
        with self.assertRaisesRegex(Lacking, "no candidates"):
            as_candidate(network, ("gelu",))


class TestDomain(unittest.TestCase):
    def test_networks_are_found_within_the_bounds_of_their_inputs(self):
        for act_fun, domain in (("tanh", (0.0, 1.0)), ("gelu", (-1.0, 1.0)), ("softplus", (2.0, 2.5))):
            with self.subTest(act_fun=act_fun, domain=domain):
                network, asked = known.layers((12, 5, 3), act_fun), []
                teacher = Questions(lambda x, network=network, asked=asked: asked.append(x) or network.pre_activations(x), 12)
                found = recover_inside(teacher, domain)
                assert found.layers is not None
                self.assertTrue(score(found.layers, network).identified)
                queries = torch.cat(asked)
                self.assertEqual(len(queries), found.queries)
                self.assertGreaterEqual(float(queries.min()), domain[0])
                self.assertLessEqual(float(queries.max()), domain[1])

    def test_what_is_not_found_within_bounds_is_said_without_leaving_them(self):
        for act_fun, sizes, reason in (("relu", (8, 4, 2), "relu"), ("tanh", (10, 6, 4, 2), "more than one hidden layer")):
            network, asked = known.layers(sizes, act_fun), []
            teacher = Questions(lambda x, network=network, asked=asked: asked.append(x) or network.pre_activations(x), sizes[0])
            self.assertRegex(recover_inside(teacher, (0.0, 1.0)).lacks[0], reason)
            self.assertTrue(bool(((torch.cat(asked) >= 0) & (torch.cat(asked) <= 1)).all()))
