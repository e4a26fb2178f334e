"""Building models from names and seeds, and loading them from files."""

import os
from unittest import mock

import torch

from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from models import base, registry
from testing.test_case import TestCase

BARE_NAMES = ("digits_lenet", "mnist_lenet", "cifar_lenet", "mlp", "cifar_vgg", "cifar_resnet", "imagenet_resnet")
BARE_NAMES += ("students_digits_lenet", "students_mnist_lenet", "students_cifar_lenet", "students_mlp")


def hparams(model_name: str = "mlp_3_4_2", **changes) -> ModelHparams:
    return ModelHparams(**{"model_name": model_name, "model_init": "kaiming_normal", "batchnorm_init": "uniform"} | changes)


class NameTest(TestCase):
    def test_full_names_are_not_changed(self):
        for name in ("digits_lenet_16", "mnist_lenet_300_100", "mlp_2_8_1", "students_digits_lenet(10)_64", "students_mlp(3)_2_5_1"):
            self.assertEqual(registry.resolve(name), name)

    def test_a_number_above_all_memory_is_refused(self):
        for name in ("mlp_784_1000000000001_10", f"digits_lenet_{27 * '9'}", f"students_digits_lenet({20 * '9'})_64"):
            with self.assertRaisesRegex(ConfigError, "--model_name: .* is too large; valid: numbers up to 1,000,000,000,000"):
                registry.resolve(name)

    def test_a_model_that_is_larger_than_the_memory_is_refused_before_it_is_built(self):
        # 64 * 8 + 8 + 8 * 10 + 10 = 610 weights, which need 2,440 bytes, and as many for gradients
        for memory, frozen, fits in ((4880, False, True), (4879, False, False), (4879, True, True)):
            with mock.patch("platforms.base.Platform.memory_bytes", memory):
                model_hparams = hparams("digits_lenet_8", output_frozen=frozen)
                if fits:
                    registry.check_fits(model_hparams, 64, 10)
                    continue
                with self.assertRaisesRegex(ConfigError, "--model_name: digits_lenet_8 has 610 weights"):
                    registry.check_fits(model_hparams, 64, 10)

    def test_bare_names_are_resolved_to_existing_models(self):
        for name in BARE_NAMES:
            member = registry.resolve(name)
            self.assertRegex(member, rf"^{name}(\(\d+\))?_\d")
            self.assertEqual(registry.get_default_hparams(name).model_hparams.model_name, member)
            self.assertIsInstance(registry.get(hparams(name)), registry.family_of(member))

    def test_default_hyperparameters_can_be_built(self):
        for name in BARE_NAMES:
            registry.check(registry.get_default_hparams(name).model_hparams)

    def test_invalid_names_are_refused(self):
        for name in ("", "lenet", "mlp_2_1", "digits_lenet_0", "students_digits_lenet(0)_4", "students", "mlp_2_8_1 "):
            with self.assertRaisesRegex(ConfigError, "--model_name: .* is not a model"):
                registry.resolve(name)

    def test_the_error_suggests_the_nearest_name_and_all_patterns(self):
        with self.assertRaisesRegex(ConfigError, "did you mean 'digits_lenet'.*digits_lenet_P_Q.*mlp_D_P_Q.*students_mlp"):
            registry.resolve("digit_lenet")

    def test_the_error_for_a_name_that_begins_with_a_family_shows_only_its_pattern(self):
        for name, rule in (
            ("mlp_2_1", "mlp_D_P_Q_..._O"),
            ("students_mlp(3)_2_1", "students_mlp(N)_D_P_Q_..._O"),
            ("digits_lenet_0", "digits"),
        ):
            with self.assertRaises(ConfigError) as caught:
                registry.resolve(name)
            self.assertIn(f"; valid: {rule}", str(caught.exception))
            self.assertNotIn("mnist_lenet", str(caught.exception).replace("students_mnist_lenet", ""))

    def test_the_error_names_the_flag(self):
        with self.assertRaisesRegex(ConfigError, "^--default_hparams: 'nothing' is not a model"):
            registry.get_default_hparams("nothing")


class CheckTest(TestCase):
    def test_valid_hyperparameters_pass(self):
        registry.check(hparams())

    def test_each_invalid_hyperparameter_is_named_with_the_valid_values(self):
        wrong = {"model_init": ("kaiming_norm", "orthogonal"), "batchnorm_init": ("fixd", "uniform"), "act_fun": ("relo", "tanh")}
        for field, (value, valid) in wrong.items():
            with self.assertRaisesRegex(ConfigError, f"--{field}: '{value}' is not known, did you mean .*{valid}"):
                registry.check(hparams(**{field: value}))

    def test_the_values_in_help_are_valid(self):
        choices = registry.choices()
        for field in ("model_init", "batchnorm_init", "act_fun"):
            for value in choices[field]:
                registry.check(hparams(**{field: value}))

    def test_a_model_with_other_inputs_than_the_examples_is_refused(self):
        registry.check_fits(hparams("digits_lenet_4"), 64, 10)
        with self.assertRaisesRegex(ConfigError, "--model_name: digits_lenet_4 takes 64 inputs; the examples have 784"):
            registry.check_fits(hparams("digits_lenet_4"), 784, 10)

    def test_a_model_with_other_outputs_than_the_dataset_is_refused(self):
        with self.assertRaisesRegex(ConfigError, "mlp_3_4_2 has 2 outputs; this dataset needs 10"):
            registry.check_fits(hparams("mlp_3_4_2"), 3, 10)


class SeedTest(TestCase):
    names = ("mlp_3_4_2", "students_mlp(3)_3_4_2")

    def weights(self, name: str, seed: int, **changes) -> torch.Tensor:
        return torch.nn.utils.parameters_to_vector(registry.get(hparams(name, **changes), seed=seed).parameters())

    def test_the_same_seed_gives_the_same_weights_for_any_global_random_state(self):
        for name in self.names:
            first = self.weights(name, 5)
            torch.manual_seed(99)
            self.assertTrue(torch.equal(self.weights(name, 5), first))

    def test_another_seed_gives_other_weights(self):
        for name in self.names:
            self.assertFalse((self.weights(name, 5) == self.weights(name, 6)).any())

    def test_building_does_not_change_the_global_random_state(self):
        before = torch.get_rng_state()
        for name in self.names:
            self.weights(name, 5)
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_the_initialiser_is_that_of_the_hyperparameters(self):
        model = registry.get(hparams("mlp_3_9_2", model_init="binary"))
        self.assertEqual(len(set(model.fc_layers[0].weight.flatten().tolist())), 2)


class LoadTest(TestCase):
    def save(self, model_name: str = "mlp_3_4_2", step: int = 0, seed: int = 1) -> str:
        self.model = registry.get(hparams(model_name), seed=seed).double()
        self.model.save(self.root, Step(step, 10))
        return os.path.join(self.root, f"model_{Step(step, 10)}.pth")

    def test_weights_are_read_back_bit_for_bit_in_the_number_format_of_the_file(self):
        for name in SeedTest.names:
            loaded = registry.load(self.save(name), hparams(name))
            for key, value in self.model.state_dict().items():
                self.assertEqual(loaded.state_dict()[key].dtype, torch.float64)
                self.assertTrue(torch.equal(loaded.state_dict()[key], value))

    def assert_refused(self, path: str, words: str, model_name: str = "mlp_3_4_2"):
        with self.assertRaisesRegex(ConfigError, words) as caught:
            registry.load(path, hparams(model_name))
        self.assertIn(path, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_the_file_of_another_model_is_refused(self):
        path = self.save()
        for other in ("mlp_3_5_2", "mlp_3_4_4_2", "students_mlp(3)_3_4_2"):
            self.assert_refused(path, "does not contain the weights of this model", other)

    def test_a_file_without_weights_is_refused(self):
        path = os.path.join(self.root, "other.pth")
        for content in ({}, [1, 2], {"model": {"fc.weight": torch.zeros(2)}}, {"fc.weight": torch.zeros(2)}):
            torch.save(content, path)
            self.assert_refused(path, "does not contain the weights of this model")

    def test_integer_weights_are_refused(self):
        path = self.save()
        torch.save({name: value.long() for name, value in self.model.state_dict().items()}, path)
        self.assert_refused(path, "does not contain the weights of this model")

    def test_no_memory_is_allocated_for_a_model_that_does_not_match_the_file(self):
        path = self.save()
        for huge in ("mlp_3_9999999999_2", "mlp_9999999999_9999999999_2"):
            with self.assertRaisesRegex(ConfigError, "does not contain the weights of this model|cannot be built"):
                registry.load(path, hparams(huge))

    def test_a_truncated_file_is_refused(self):
        path = self.save()
        os.truncate(path, os.path.getsize(path) - 10)
        self.assert_refused(path, "damaged or truncated")

    def test_a_missing_file_is_refused(self):
        self.assert_refused(os.path.join(self.root, "none.pth"), "does not exist")

    def test_a_refused_file_is_not_changed(self):
        path = self.save()
        os.truncate(path, 100)
        self.assert_refused(path, "damaged")
        self.assertEqual(os.path.getsize(path), 100)

    def test_a_pickled_object_is_not_executed(self):
        path = os.path.join(self.root, "evil.pth")
        with open(path, "wb") as file:
            file.write(base.to_bytes({"fc.weight": _Trap()}))
        self.assert_refused(path, "damaged")
        self.assertFalse(os.path.exists(os.path.join(self.root, "sprung")))

    def test_the_latest_weights_file_has_the_largest_step_by_number(self):
        for step in (0, 9, 11, 101, 99):
            self.save(step=step)
        self.assertEqual(registry.latest_weights_file(self.root), os.path.join(self.root, "model_ep10_it1.pth"))

    def test_other_files_are_not_weights(self):
        for name in ("checkpoint.pth", "model_ep1_it0.pth.new", ".model_ep1_it0.pth.new", "model_x.pth"):
            with open(os.path.join(self.root, name), "w"):
                pass
        with self.assertRaisesRegex(ConfigError, f"{self.root} contains no model_ep"):
            registry.latest_weights_file(self.root)


class _Trap:
    """An object that writes a file when it is unpickled."""

    def __reduce__(self):
        return open, (os.path.join(os.environ["EC_ROOT"], "sprung"), "w")
