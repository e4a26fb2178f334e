"""Fully connected networks: names, weights and outputs."""

import math

import torch

from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import activation_functions, cifar_lenet, digits_lenet, mlp, mnist_lenet, registry
from testing.test_case import TestCase

FAMILIES = {"digits_lenet": digits_lenet.Model, "mnist_lenet": mnist_lenet.Model, "cifar_lenet": cifar_lenet.Model, "mlp": mlp.Model}


def build(model_name: str, outputs: int | None = None, act_fun: str = "relu") -> mlp.FullyConnected:
    return registry.get(ModelHparams(model_name, "kaiming_normal", "uniform", act_fun), outputs)


class NameTest(TestCase):
    valid = {
        "digits_lenet_16": [64, 16, 10],
        "digits_lenet_16_8_4": [64, 16, 8, 4, 10],
        "mnist_lenet_300_100": [784, 300, 100, 10],
        "cifar_lenet_300_100": [3072, 300, 100, 10],
        "mlp_2_8_1": [2, 8, 1],
        "mlp_5_4_3_2": [5, 4, 3, 2],
    }

    def test_a_name_gives_the_sizes(self):
        for name, sizes in self.valid.items():
            self.assertEqual(build(name).sizes, sizes)

    def test_a_name_belongs_to_one_family(self):
        for name in self.valid:
            families = [family for family, model in FAMILIES.items() if model.is_valid_model_name(name)]
            self.assertEqual(families, [family for family in FAMILIES if name.startswith(family)])

    def test_names_without_hidden_layers_or_with_empty_ones_are_not_valid(self):
        invalid = ["mlp", "mlp_", "mlp_2", "mlp_2_1", "mlp_2_0_1", "mlp_2_08_1", "mlp_2_-8_1", "mlp_2_8_1_", "mlp_2_8_1\n", "mlp(3)_2_8_1"]
        invalid += ["digits_lenet", "digits_lenet_", "digits_lenet_0", "digits_lenet_a", "digits_lenet_1.5", "digits_lenet16"]
        invalid += ["mnist_lenet_300__100", "xmnist_lenet_300", "students_digits_lenet_16"]
        for name in invalid:
            for family in FAMILIES.values():
                self.assertFalse(family.is_valid_model_name(name), name)

    def test_name_of_is_the_inverse_of_parse(self):
        for name, sizes in self.valid.items():
            family = next(family for family in FAMILIES.values() if family.is_valid_model_name(name))
            self.assertEqual(family.name_of(sizes), name)

    def test_the_bare_family_stands_for_a_valid_member(self):
        for family, model in FAMILIES.items():
            self.assertTrue(model.is_valid_model_name(model.default_members()[family]))

    def test_the_default_hyperparameters_contain_the_full_name(self):
        for name in self.valid:
            self.assertEqual(registry.get_default_hparams(name).model_hparams.model_name, name)

    def test_the_dataset_determines_outputs_that_the_name_does_not_contain(self):
        self.assertEqual(build("digits_lenet_16", outputs=3).sizes, [64, 16, 3])

    def test_outputs_that_contradict_the_name_are_refused(self):
        self.assertEqual(build("mlp_2_8_1", outputs=1).sizes, [2, 8, 1])
        with self.assertRaisesRegex(ConfigError, "--model_name: mlp_2_8_1 has 1 outputs; this dataset needs 3"):
            build("mlp_2_8_1", outputs=3)


class NetworkTest(TestCase):
    def test_lenet_300_100_has_266610_parameters(self):
        self.assertEqual(sum(parameter.numel() for parameter in build("mnist_lenet_300_100").parameters()), 266_610)

    def test_state_dict_keys_and_shapes_are_those_of_openlth(self):
        shapes = {name: tuple(value.shape) for name, value in build("mlp_5_4_3_2").state_dict().items()}
        expected = {
            "fc_layers.0.weight": (4, 5),
            "fc_layers.0.bias": (4,),
            "fc_layers.1.weight": (3, 4),
            "fc_layers.1.bias": (3,),
            "fc.weight": (2, 3),
            "fc.bias": (2,),
        }
        self.assertEqual(shapes, expected)

    def test_outputs_agree_with_the_formula_for_every_activation_function(self):
        x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for name, function in activation_functions.activation_functions.items():
            model = build("mlp_5_4_3_2", act_fun=name).double()
            for case, example in zip(model(x), x.tolist(), strict=True):
                hidden = example
                for layer in model.fc_layers:
                    hidden = function(torch.tensor(affine(layer, hidden), dtype=torch.float64)).tolist()
                torch.testing.assert_close(case.tolist(), affine(model.fc, hidden), rtol=1e-12, atol=1e-14)

    def test_images_are_flattened(self):
        model, images = build("digits_lenet_4"), torch.randn(3, 1, 8, 8)
        self.assertTrue(torch.equal(model(images), model(images.view(3, 64))))

    def test_all_kernels_are_prunable_and_the_last_layer_is_the_output_layer(self):
        model = build("mlp_5_4_3_2")
        self.assertEqual(model.prunable_layer_names, ["fc_layers.0.weight", "fc_layers.1.weight", "fc.weight"])
        self.assertEqual(model.output_layer_names, ["fc.weight", "fc.bias"])

    def test_the_input_size_is_the_number_of_values_of_an_example(self):
        self.assertEqual([build(name).input_size for name in NameTest.valid], [64, 64, 784, 3072, 2, 5])


def affine(layer: torch.nn.Linear, x: list[float]) -> list[float]:
    """The outputs of a linear layer, computed without torch."""
    return [
        math.fsum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]
