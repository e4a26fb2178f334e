"""Strategies by name, and their flags."""

from __future__ import annotations

import dataclasses

from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from models import registry as models
from pruning import fc19, registry, sparse_global
from pruning.hparams import PruningHparams
from testing.test_case import TestCase

DEFAULTS = sparse_global.PruningHparams("sparse_global", 0.3, "fc.weight")


def parser(*arguments: str, defaults: PruningHparams | None = None) -> ArgumentParser:
    made = ArgumentParser("test", arguments)
    registry.add_args(made, defaults)
    return made


def parse(*arguments: str, defaults: PruningHparams | None = None) -> PruningHparams:
    return registry.create_from_args(parser(*arguments, defaults=defaults).parse())


class TestFlags(TestCase):
    def test_a_strategy_has_its_own_flags(self):
        own = {
            "fc19": {"pruning_conv_fraction", "pruning_output_fraction", "pruning_layerwise"},
            "han": {"pruning_relative"},
            "random": {"pruning_layerwise"},
            "erdos_renyi_kernel": {"pruning_erk_power"},
            "snip": {"pruning_examples"},
            "grasp": {"pruning_examples", "pruning_temperature"},
            "synflow": {"pruning_iterations"},
        }
        shared = {"pruning_strategy", "pruning_fraction", "pruning_layers_to_ignore"}
        for strategy in registry.registered_strategies:
            made = parse(f"--pruning_strategy={strategy}")
            self.assertEqual({field.name for field in dataclasses.fields(made)}, shared | own.get(strategy, set()))
            self.assertEqual(made, registry.get_pruning_hparams(strategy)(strategy))

    def test_flags_are_read(self):
        made = parse("--pruning_strategy", "fc19", "--pruning_fraction", "0.5", "--pruning_conv_fraction=0.1")
        self.assertEqual(made, fc19.PruningHparams("fc19", 0.5, None, 0.1))

    def test_the_flags_of_another_strategy_are_refused(self):
        with self.assertRaisesRegex(ConfigError, "--pruning_iterations"):
            parse("--pruning_strategy=snip", "--pruning_iterations=3")

    def test_flags_override_defaults(self):
        self.assertEqual(parse(defaults=DEFAULTS), DEFAULTS)
        made = parse("--pruning_fraction=0.1", defaults=DEFAULTS)
        self.assertEqual(made, dataclasses.replace(DEFAULTS, pruning_fraction=0.1))

    def test_another_strategy_has_its_own_defaults(self):
        self.assertEqual(parse("--pruning_strategy=fc19", defaults=DEFAULTS), fc19.PruningHparams("fc19"))

    def test_the_strategy_is_required(self):
        with self.assertRaisesRegex(ConfigError, "^--pruning_strategy is required"):
            parse()

    def test_help_offers_every_strategy(self):
        for defaults in (None, DEFAULTS):
            text = " ".join(parser(defaults=defaults).format_help().split())
            self.assertIn(f"one of: {', '.join(registry.registered_strategies)}", text)

    def test_values_out_of_range_are_refused(self):
        bad = {
            "fc19": ("pruning_output_fraction", "1.0"),
            "erdos_renyi_kernel": ("pruning_erk_power", "-1"),
            "snip": ("pruning_examples", "0"),
            "grasp": ("pruning_temperature", "0"),
            "synflow": ("pruning_iterations", "0"),
        }
        for strategy, (field, value) in bad.items():
            with self.assertRaisesRegex(ConfigError, f"^--{field}: .* is out of range; valid: "):
                parse(f"--pruning_strategy={strategy}", f"--{field}={value}")


class TestNames(TestCase):
    def test_the_text_that_names_a_run_leaves_defaults_out(self):
        text = "Hparams(pruning_fraction=0.3, pruning_layers_to_ignore='fc.weight', pruning_strategy='sparse_global')"
        self.assertEqual(str(DEFAULTS), text)
        for strategy in registry.registered_strategies:
            self.assertEqual(str(parse(f"--pruning_strategy={strategy}")), f"Hparams(pruning_strategy='{strategy}')")

    def test_the_error_for_an_unknown_strategy_suggests_the_nearest(self):
        by_flag = lambda name: parse("--pruning_strategy", name)  # noqa: E731
        for call in (registry.get_pruning_hparams, lambda name: registry.get(PruningHparams(name)), by_flag):
            with self.assertRaisesRegex(ConfigError, "--pruning_strategy: 'snipp' is not known, did you mean 'snip'.*sparse_global"):
                call("snipp")


class TestCheck(TestCase):
    def test_models_are_checked_without_weights(self):
        outline = models.meta_model(ModelHparams("students_digits_lenet(10)_64", "kaiming_normal", "uniform"))
        registry.check(DEFAULTS, outline)
        with self.assertRaisesRegex(ConfigError, "did you mean 'fc_layers.0.weight'"):
            registry.check(dataclasses.replace(DEFAULTS, pruning_layers_to_ignore="fc_layer.0.weight"), outline)
        with self.assertRaisesRegex(ConfigError, "--pruning_strategy"):
            registry.check(PruningHparams("prune"), outline)
