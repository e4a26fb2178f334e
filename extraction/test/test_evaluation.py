"""Scores of networks whose distance to the teacher is known."""

import copy
import unittest

import torch

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction.evaluation import function_error, hidden_from, score
from extraction.network import Layers
from extraction.symmetry import symmetries, transform
from foundations.model_hparams import ModelHparams
from models import registry


def network(name="mlp_4_5_3", act_fun="relu", seed=0):
    return registry.get(ModelHparams(name, "kaiming_normal", "uniform", act_fun), seed=seed).double()


def in_another_gauge(model):
    """A network with the same function: neurons in another order, with other signs and scales where these are free."""
    moved, symmetry = copy.deepcopy(model), symmetries[model.act_fun]
    generator = torch.Generator().manual_seed(1)
    layers = [*moved.fc_layers, moved.fc]
    for layer, following in zip(layers, layers[1:], strict=False):
        width = layer.out_features
        order = torch.randperm(width, generator=generator)
        draw = torch.randn(width, generator=generator, dtype=torch.float64)
        ones = torch.ones(width, dtype=torch.float64)
        signs = torch.sign(draw) if symmetry.opposite_is_equal else ones
        scales = 0.5 + draw.abs() if symmetry.positive_scaling else ones
        incoming = torch.cat([layer.weight.data, layer.bias.data[:, None]], 1)[order]
        incoming, outgoing, bias = transform(symmetry, incoming, following.weight.data.T[order], following.bias.data, signs * scales)
        layer.weight.data, layer.bias.data = incoming[:, :-1].clone(), incoming[:, -1].clone()
        following.weight.data, following.bias.data = outgoing.T.clone(), bias
    return moved


def compared(model, teacher):
    """The score of a model against a teacher."""
    return score(Layers.of(model), Layers.of(teacher) if teacher else None)


class TestScore(unittest.TestCase):
    def test_the_teacher_in_any_gauge_is_identified(self):
        for act_fun in symmetries:
            for name in ("mlp_4_5_3", "mlp_4_5_6_3"):
                with self.subTest(act_fun=act_fun, name=name):
                    teacher = network(name, act_fun)
                    found = compared(in_another_gauge(teacher), teacher)
                    self.assertTrue(found.identified)
                    self.assertLess(found.max_relative_error, 1e-13)
                    self.assertEqual([layer.matched for layer in found.layers], [layer.teacher_width for layer in found.layers])

    def test_the_error_is_relative_to_the_largest_weight_of_the_layer(self):
        teacher = network(act_fun="g")
        wrong = in_another_gauge(teacher)
        wrong.fc.bias.data[1] += 0.01
        largest = torch.cat([teacher.fc.weight.data.flatten(), teacher.fc.bias.data]).abs().max().item()
        found = compared(wrong, teacher)
        self.assertFalse(found.identified)
        self.assertAlmostEqual(found.max_relative_error, 0.01 / largest)
        self.assertLess(found.layers[0].max_weight_error, 1e-13)

    def test_a_missing_neuron_is_not_matched(self):
        teacher, found = network("mlp_4_5_3", "tanh"), network("mlp_4_4_3", "tanh")
        found.fc_layers[0].weight.data, found.fc_layers[0].bias.data = (
            teacher.fc_layers[0].weight.data[1:],
            teacher.fc_layers[0].bias.data[1:],
        )
        hidden = compared(found, teacher).layers[0]
        self.assertEqual((hidden.matched, hidden.missing, hidden.excess), (4, 1, 0))
        self.assertFalse(compared(found, teacher).identified)

    def test_an_extra_neuron_is_in_excess_even_if_the_function_is_equal(self):
        teacher, found = network("mlp_4_5_3"), network("mlp_4_6_3", seed=3)
        found.fc_layers[0].weight.data[:5], found.fc_layers[0].bias.data[:5] = (
            teacher.fc_layers[0].weight.data,
            teacher.fc_layers[0].bias.data,
        )
        found.fc.weight.data = torch.cat([teacher.fc.weight.data, torch.zeros(3, 1, dtype=torch.float64)], 1)
        found.fc.bias.data = teacher.fc.bias.data
        scored = compared(found, teacher)
        self.assertEqual((scored.layers[0].matched, scored.layers[0].missing, scored.layers[0].excess), (5, 0, 1))
        self.assertFalse(scored.identified)

    def test_matching_is_one_to_one(self):
        teacher, found = network(act_fun="tanh"), network(act_fun="tanh", seed=3)
        found.fc_layers[0].weight.data[:] = teacher.fc_layers[0].weight.data[0]
        found.fc_layers[0].bias.data[:] = teacher.fc_layers[0].bias.data[0]
        self.assertEqual(compared(found, teacher).layers[0].matched, 1)

    def test_another_activation_function_is_not_the_teacher(self):
        teacher = network(act_fun="relu")
        other = network(act_fun="gelu")
        other.load_state_dict(teacher.state_dict())
        self.assertFalse(compared(other, teacher).identified)

    def test_another_depth_is_not_the_teacher(self):
        found = compared(network("mlp_4_5_3"), network("mlp_4_5_6_3"))
        self.assertFalse(found.identified)
        self.assertIsNone(found.max_relative_error)

    def test_without_the_teachers_weights_the_score_is_unknown(self):
        found = compared(network(), None)
        self.assertIsNone(found.identified)
        self.assertEqual([layer.recovered_width for layer in found.layers], [5, 3])
        self.assertIsNone(found.layers[0].teacher_width)

    def test_units_of_the_teacher_that_no_query_shows_are_named(self):
        queries = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for act_fun, dead in (("relu", "no answer tells its weights"), ("leaky_relu", "the answers tell only a linear map")):
            teacher = network("mlp_4_5_3", act_fun).float()
            teacher.fc_layers[0].bias.data[[1, 3]] = torch.tensor([-1e3, 1e3])
            first, second = hidden_from(queries, teacher)
            self.assertIn(f"neuron 1 of hidden layer 1 of the teacher is active for no query: {dead}", first)
            self.assertIn("neuron 3 of hidden layer 1 of the teacher is active for all queries: the answers tell only", second)
            self.assertEqual(hidden_from(queries, network("mlp_4_5_3", "tanh")), [])

    def test_the_function_error_is_the_error_of_the_answers(self):
        model = network()
        queries = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        answers = model(queries).detach()
        answers[3, 1] += 0.5
        found = function_error(model, DataLoader(Dataset(queries, answers), 8, dtype=torch.float64))
        self.assertEqual(found.queries, 20)
        self.assertAlmostEqual(found.mse, 0.25 / 60)
        self.assertAlmostEqual(found.max_abs_error, 0.5)


if __name__ == "__main__":
    unittest.main()
