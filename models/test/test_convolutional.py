"""The convolutional families: names, sizes, depths and default hyperparameters."""

import torch
from torch import nn

from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import cifar_resnet, cifar_vgg, imagenet_resnet, registry
from testing.test_case import TestCase
from training.desc import TrainingDesc

FAMILIES = (cifar_vgg.Model, cifar_resnet.Model, imagenet_resnet.Model)

# Names with the number of layers in the published tables.
DEPTHS = {
    "cifar_vgg_11": 11,
    "cifar_vgg_13": 13,
    "cifar_vgg_16": 16,
    "cifar_vgg_19": 19,
    "cifar_resnet_8": 8,
    "cifar_resnet_20": 20,
    "cifar_resnet_110": 110,
    "cifar_resnet_20_128": 20,
    "imagenet_resnet_18": 18,
    "imagenet_resnet_34": 34,
    "imagenet_resnet_50": 50,
    "imagenet_resnet_101": 101,
    "imagenet_resnet_152": 152,
    "imagenet_resnet_200": 200,
    "imagenet_resnet_50_128": 50,
}
PARAMETERS = {
    "mnist_lenet_300_100": 266_610,
    "cifar_resnet_20": 272_474,
    "cifar_resnet_20_32": 1_084_586,
    "cifar_vgg_16": 14_728_266,
    "imagenet_resnet_18": 11_689_512,
    "imagenet_resnet_50": 25_557_032,
}
NOT_THERE = {
    "cifar_vgg_12": "cifar_vgg_D (D = 11 | 13 | 16 | 19)",
    "cifar_vgg_16_32": "cifar_vgg_D (D = 11 | 13 | 16 | 19)",
    "cifar_resnet_21": "cifar_resnet_D[_W] (D = 6n + 2: 8 | 14 | 20 | ... | 1202)",
    "cifar_resnet_2": "cifar_resnet_D[_W] (D = 6n + 2: 8 | 14 | 20 | ... | 1202)",
    "cifar_resnet_20_0": "cifar_resnet_D[_W] (D = 6n + 2: 8 | 14 | 20 | ... | 1202)",
    "cifar_resnet_20_16_16": "cifar_resnet_D[_W] (D = 6n + 2: 8 | 14 | 20 | ... | 1202)",
    "imagenet_resnet_20": "imagenet_resnet_D[_W] (D = 18 | 34 | 50 | 101 | 152 | 200)",
}


def hparams(model_name: str, **changes) -> ModelHparams:
    return ModelHparams(model_name, "kaiming_normal", "uniform", **changes)


def depth(model: nn.Module) -> int:
    """The depth in the name of a network: convolutions outside of shortcuts plus linear layers, of which VGG counts three."""
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    linear = 3 if isinstance(model, cifar_vgg.Model) else 1
    return linear + sum("shortcut" not in name and "downsample" not in name for name in convolutions)


class NameTest(TestCase):
    def test_a_name_belongs_to_one_family_and_contains_the_depth(self):
        for name, layers in DEPTHS.items():
            with self.subTest(name):
                families = [family for family in FAMILIES if family.is_valid_model_name(name)]
                self.assertEqual([name.startswith(family.family) for family in families], [True])
                self.assertEqual(depth(registry.meta_model(hparams(name))), layers)

    def test_models_have_as_many_parameters_as_published(self):
        for name, count in PARAMETERS.items():
            with self.subTest(name):
                self.assertEqual(sum(parameter.numel() for parameter in registry.meta_model(hparams(name)).parameters()), count)

    def test_the_error_for_an_invalid_name_shows_the_pattern(self):
        for name, rule in NOT_THERE.items():
            with self.subTest(name), self.assertRaises(ConfigError) as caught:
                registry.resolve(name)
            self.assertRegex(str(caught.exception), rf"^--model_name: '{name}' is not a model.*; valid: ")
            self.assertTrue(str(caught.exception).endswith(f"; valid: {rule}"), str(caught.exception))

    def test_other_names_are_not_valid(self):
        for name in (
            "cifar_resnet",
            "cifar_resnet_",
            "cifar_resnet_020",
            "cifar_resnet_20_",
            "cifar_resnet_20\n",
            "resnet_20",
            "cifar_vgg16",
        ):
            self.assertFalse(any(family.is_valid_model_name(name) for family in FAMILIES), name)

    def test_a_name_can_contain_the_default_width(self):
        for short, full in (("cifar_resnet_8", "cifar_resnet_8_16"), ("imagenet_resnet_18", "imagenet_resnet_18_64")):
            states = [registry.get(hparams(name), seed=3).state_dict() for name in (short, full)]
            self.assertEqual(list(states[0]), list(states[1]))
            for name, value in states[0].items():
                self.assertTrue(torch.equal(value, states[1][name]), name)

    def test_the_width_scales_every_layer(self):
        for name, times in (("cifar_resnet_14", 3), ("imagenet_resnet_18", 2), ("imagenet_resnet_50", 2)):
            width = registry.family_of(name).width
            wide = registry.meta_model(hparams(f"{name}_{times * width}")).state_dict()
            outputs = registry.meta_model(hparams(name)).output_layer_names
            for key, value in registry.meta_model(hparams(name)).state_dict().items():
                expected = [side * times if place < 2 else side for place, side in enumerate(value.shape)]
                if key in outputs:
                    expected[0] = value.shape[0]
                elif value.dim() == 4 and value.shape[1] == 3:
                    expected[1] = 3
                with self.subTest(name, tensor=key):
                    self.assertEqual(list(wide[key].shape), expected)

    def test_the_dataset_determines_the_number_of_outputs(self):
        for name, outputs in (("cifar_vgg_11", 10), ("cifar_resnet_8", 10), ("imagenet_resnet_18", 1000)):
            self.assertEqual(registry.meta_model(hparams(name)).state_dict()[self.bias(name)].shape, (outputs,))
            self.assertEqual(registry.meta_model(hparams(name), outputs=7).state_dict()[self.bias(name)].shape, (7,))

    def bias(self, name: str) -> str:
        return registry.meta_model(hparams(name)).output_layer_names[-1]


class FitTest(TestCase):
    def test_colour_images_of_any_size_fit(self):
        for name in ("cifar_vgg_11", "cifar_resnet_8", "imagenet_resnet_18"):
            registry.check_fits(hparams(name), 3 * 32 * 32, 10, (3, 32, 32))
            registry.check_fits(hparams(name), 3 * 224 * 224, 1000, (3, 224, 224))

    def test_grey_images_are_refused(self):
        with self.assertRaisesRegex(ConfigError, "--model_name: cifar_resnet_8 takes images of 3 channels; the examples have 1$"):
            registry.check_fits(hparams("cifar_resnet_8"), 784, 10, (1, 28, 28))

    def test_rows_of_values_are_refused(self):
        with self.assertRaisesRegex(ConfigError, "--model_name: cifar_vgg_11 takes images; the examples are rows of 3072 values$"):
            registry.check_fits(hparams("cifar_vgg_11"), 3072, 10)

    def test_the_command_line_refuses_before_it_writes(self):
        status, _, err = self.command("train", "--default_hparams=cifar_resnet_8", "--dataset_name=digits")
        self.assertEqual((status, self.files()), (2, []))
        self.assertIn("--model_name: cifar_resnet_8 takes images of 3 channels; the examples have 1", err)


class DefaultsTest(TestCase):
    """The default hyperparameters are the published ones; a default run has the published name."""

    def test_every_member_of_a_cifar_family_trains_as_resnet_20_does(self):
        for name in ("cifar_vgg_11", "cifar_vgg_16", "cifar_resnet_20", "cifar_resnet_20_128"):
            shown = TrainingDesc.default_for(name).display.splitlines()
            expected = ["dataset_name => cifar10", "batch_size => 128", f"model_name => {name}", "model_init => kaiming_normal"]
            expected += ["batchnorm_init => uniform", "optimizer_name => sgd", "lr => 0.1", "training_steps => 160ep", "momentum => 0.9"]
            expected += ["milestone_steps => 80ep,120ep", "delta => 0.1", "weight_decay => 0.0001"]
            self.assertEqual([line.strip(" *") for line in shown if line.startswith(" ")], expected)

    def test_the_default_run_of_resnet_20_has_the_name_of_openlth(self):
        self.assertEqual(TrainingDesc.default_for("cifar_resnet_20").hashname, "train_71bc92a970b64a76d7ab7681764b0021")

    def test_every_member_of_the_imagenet_family_trains_as_resnet_50_does(self):
        for name in ("imagenet_resnet_18", "imagenet_resnet_50", "imagenet_resnet_50_128"):
            shown = TrainingDesc.default_for(name).display.splitlines()
            expected = ["dataset_name => imagenet", "batch_size => 1024", f"model_name => {name}", "model_init => kaiming_normal"]
            expected += ["batchnorm_init => uniform", "optimizer_name => sgd", "lr => 0.4", "training_steps => 90ep", "momentum => 0.9"]
            expected += ["milestone_steps => 30ep,60ep,80ep", "delta => 0.1", "warmup_steps => 5ep", "weight_decay => 0.0001"]
            self.assertEqual([line.strip(" *") for line in shown if line.startswith(" ")], expected)

    def test_the_bare_family_stands_for_its_best_known_member(self):
        members = {"cifar_vgg": "cifar_vgg_16", "cifar_resnet": "cifar_resnet_20", "imagenet_resnet": "imagenet_resnet_50"}
        for family, member in members.items():
            self.assertEqual(registry.resolve(family), member)
            self.assertEqual(registry.get_default_hparams(family).model_hparams.model_name, member)

    def test_help_shows_the_defaults(self):
        status, out, _ = self.command("train", "--default_hparams=imagenet_resnet_50", "--help")
        text = " ".join(out.split())
        self.assertEqual(status, 0)
        for default in ("default: imagenet", "default: 1024", "default: 0.4", "default: 30ep,60ep,80ep", "default: 5ep"):
            self.assertIn(f"{default})", text)
