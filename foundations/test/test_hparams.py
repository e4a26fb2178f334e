"""Hyperparameters as flags, as text and as values."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
from dataclasses import dataclass

from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.extraction_hparams import ExtractionHparams
from foundations.hparams import Hparams, hashed_as, unhashed
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from testing.test_case import TestCase


@dataclass
class Inner(Hparams):
    depth: int = 2
    rate: float = 0.5

    _name = "Inner Hyperparameters"
    _depth = "How deep."


@dataclass
class Outer(Hparams):
    kind: str
    size: int
    zeta: bool = False
    alpha: float | None = None
    safe: bool = True
    old: int = hashed_as("ancient", 0)
    aside: str | None = unhashed(None)
    inner: Inner = dataclasses.field(default_factory=Inner)

    _name = "Outer Hyperparameters"
    _kind = "Which kind, in 100% of cases."


def parse(cls: type[Hparams], *arguments: str, **options) -> Hparams:
    parser = ArgumentParser("test", arguments)
    cls.add_args(parser, **options)
    return cls.create_from_args(parser.parse(), options.get("prefix"))


def help_of(cls: type[Hparams], **options) -> str:
    parser = ArgumentParser("test", [])
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=200)
    cls.add_args(parser, **options)
    return parser.format_help()


class TestFlags(TestCase):
    def test_each_field_is_a_flag_of_its_type(self):
        made = parse(Outer, "--kind", "a", "--size", "3", "--zeta", "--alpha=1e-3", "--old", "4", "--aside", "7")
        self.assertEqual(made, Outer(kind="a", size=3, zeta=True, alpha=0.001, old=4, aside="7"))
        self.assertIsInstance(made.alpha, float)
        self.assertIsInstance(made.size, int)

    def test_a_float_flag_makes_a_float_of_a_whole_number(self):
        self.assertIsInstance(parse(Outer, "--kind=a", "--size=3", "--alpha=1").alpha, float)

    def test_no_before_a_boolean_flag_sets_it_to_false(self):
        self.assertFalse(parse(Outer, "--kind=a", "--size=3", "--no-safe").safe)
        self.assertTrue(parse(Outer, "--kind=a", "--size=3").safe)

    def test_the_last_of_two_boolean_flags_wins(self):
        self.assertFalse(parse(Outer, "--kind=a", "--size=3", "--zeta", "--no-zeta").zeta)

    def test_without_flags_every_optional_field_has_its_default(self):
        self.assertEqual(parse(Outer, "--kind=a", "--size=3"), Outer("a", 3))

    def test_other_defaults_replace_required_fields_and_defaults_of_the_class(self):
        defaults = Outer("b", 9, zeta=True, alpha=2.0, inner=Inner(depth=5))
        self.assertEqual(parse(Outer, defaults=defaults), defaults)

    def test_flags_override_other_defaults(self):
        defaults = Outer("b", 9, zeta=True, inner=Inner(depth=5))
        made = parse(Outer, "--size", "1", "--no-zeta", "--inner_depth", "6", defaults=defaults)
        self.assertEqual(made, Outer("b", 1, inner=Inner(depth=6)))

    def test_a_prefix_applies_to_all_flags_including_nested_ones(self):
        made = parse(Outer, "--pre_kind=a", "--pre_size=3", "--no-pre_safe", "--pre_inner_depth=4", prefix="pre")
        self.assertEqual(made, Outer("a", 3, safe=False, inner=Inner(depth=4)))

    def test_with_a_prefix_the_flags_without_it_do_not_exist(self):
        with self.assertRaisesRegex(ConfigError, "--size"):
            parse(Outer, "--pre_kind=a", "--pre_size=3", "--size=3", prefix="pre")

    def test_the_same_group_can_be_added_under_two_prefixes(self):
        parser = ArgumentParser("test", ["--one_depth=3", "--two_depth=4"])
        Inner.add_args(parser, prefix="one")
        Inner.add_args(parser, prefix="two")
        args = parser.parse()
        self.assertEqual([Inner.create_from_args(args, prefix).depth for prefix in ("one", "two")], [3, 4])

    def test_the_error_for_a_missing_required_flag_names_it(self):
        with self.assertRaisesRegex(ConfigError, "^--size is required"):
            parse(Outer, "--kind=a")

    def test_the_error_for_a_missing_required_flag_names_its_prefix(self):
        with self.assertRaisesRegex(ConfigError, "^--pre_size is required"):
            parse(Outer, "--pre_kind=a", prefix="pre")

    def test_values_are_checked_when_flags_are_read(self):
        with self.assertRaisesRegex(ConfigError, "^--batch_size: 0 "):
            parse(DatasetHparams, "--dataset_name=digits", "--batch_size=0")
        with self.assertRaisesRegex(ConfigError, "^--pre_batch_size: 0 "):
            parse(DatasetHparams, "--pre_dataset_name=digits", "--pre_batch_size=0", prefix="pre")


class TestHelp(TestCase):
    def test_help_shows_the_group_the_text_and_the_default(self):
        text = help_of(Inner)
        self.assertIn("Inner Hyperparameters", text)
        self.assertRegex(text, r"--depth INT +How deep\. \(default: 2\)")

    def test_help_says_which_flags_are_required(self):
        self.assertRegex(help_of(Outer), r"--kind STR +Which kind, in 100% of cases\. \(required\)")

    def test_help_shows_defaults_that_replace_those_of_the_class(self):
        text = help_of(Outer, defaults=Outer("b", 9, inner=Inner(depth=5)))
        self.assertRegex(text, r"--kind STR .*\(default: b\)")
        self.assertRegex(text, r"--inner_depth INT .*\(default: 5\)")
        self.assertNotIn("required", text)

    def test_help_lists_choices(self):
        self.assertRegex(help_of(Outer, choices={"kind": ["odd", "even"]}), r"--kind STR .*\(one of: odd, even; required\)")

    def test_help_offers_both_forms_of_a_boolean(self):
        self.assertIn("--zeta, --no-zeta", help_of(Outer))

    def test_help_of_all_groups_can_be_printed(self):
        parser = ArgumentParser("test", [])
        for group in (DatasetHparams, ModelHparams, TrainingHparams, ExtractionHparams):
            group.add_args(parser)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            parser.print_help()
        for group in (DatasetHparams, ModelHparams, TrainingHparams, ExtractionHparams):
            self.assertIn(group._name, printed.getvalue())

    def test_every_hyperparameter_has_a_help_text(self):
        for group in (DatasetHparams, ModelHparams, TrainingHparams, ExtractionHparams):
            for field in dataclasses.fields(group):
                with self.subTest(field=field.name):
                    self.assertTrue(getattr(group, f"_{field.name}", ""))


class TestCanonicalText(TestCase):
    def test_only_fields_that_differ_from_their_defaults_are_in_the_text(self):
        self.assertEqual(str(Inner()), "Hparams()")
        self.assertEqual(str(Inner(rate=0.25)), "Hparams(rate=0.25)")

    def test_names_are_sorted_and_values_are_their_repr(self):
        made = Outer("a'b", 3, zeta=True, alpha=1e-7, inner=Inner(depth=1))
        self.assertEqual(str(made), """Hparams(alpha=1e-07, inner=Hparams(depth=1), kind="a'b", size=3, zeta=True)""")

    def test_a_default_that_is_set_explicitly_is_not_in_the_text(self):
        self.assertEqual(str(Outer("a", 3, alpha=None, inner=Inner(2, 0.5))), str(Outer("a", 3)))

    def test_an_unhashed_field_is_left_out(self):
        self.assertEqual(str(Outer("a", 3, aside="x")), "Hparams(kind='a', size=3)")

    def test_a_renamed_field_has_and_is_sorted_by_its_older_name(self):
        self.assertEqual(str(Outer("a", 3, old=1)), "Hparams(ancient=1, kind='a', size=3)")

    def test_delta_is_called_gamma(self):
        self.assertIn("(gamma=0.5, lr=", str(TrainingHparams("sgd", 0.1, "1ep", delta=0.5)))

    def test_further_training_is_not_in_the_text(self):
        self.assertNotIn("further", str(TrainingHparams("sgd", 0.1, "1ep", further_training="5ep")))


class TestDisplay(TestCase):
    def test_display_shows_required_and_changed_fields_in_the_order_of_the_fields(self):
        shown = TrainingHparams("sgd", 0.1, "160ep", delta=0.1, momentum=0.9, further_training="1ep").display
        lines = ["Training Hyperparameters", "optimizer_name => sgd", "lr => 0.1", "training_steps => 160ep"]
        lines += ["momentum => 0.9", "delta => 0.1", "further_training => 1ep"]
        self.assertEqual(shown, "\n    * ".join(lines))


class TestDict(TestCase):
    def test_every_value_is_restored_from_json(self):
        bundles = [
            DatasetHparams("teacher", 256, teacher_name="train_0", teacher_seed=3, datagen="digits", samples=7, d_in=2),
            ModelHparams("mlp_2_3_4", "binary", "fixed", "tanh"),
            TrainingHparams("adam", 0.1 + 0.2, "3ep20it", delta=0.3, plateau_opt=True, milestone_steps="1ep,2ep", further_training="1it"),
            ExtractionHparams(gamma=0.9, finetune_batch_size=10),
        ]
        for bundle in bundles:
            with self.subTest(bundle=type(bundle).__name__):
                self.assertEqual(type(bundle).from_dict(json.loads(json.dumps(bundle.to_dict()))), bundle)

    def test_the_dict_contains_defaults_and_unhashed_fields(self):
        self.assertEqual(set(TrainingHparams("sgd", 0.1, "1ep").to_dict()), {field.name for field in dataclasses.fields(TrainingHparams)})

    def test_a_field_that_is_missing_in_a_record_has_its_default(self):
        self.assertEqual(Inner.from_dict({"depth": 7}), Inner(depth=7, rate=0.5))

    def test_unknown_fields_of_a_record_are_ignored(self):
        self.assertEqual(Inner.from_dict({"depth": 7, "removed": 1}), Inner(depth=7))

    def test_values_of_the_wrong_type_are_an_error(self):
        whole = Outer("a", 1).to_dict()
        wrong = [
            {"kind": 3},
            {"kind": None},
            {"size": "1"},
            {"size": 1.0},
            {"size": True},
            {"zeta": 1},
            {"zeta": "False"},
            {"alpha": "0.5"},
        ]
        for change in (*wrong, {"inner": 5}, {"inner": {"depth": "2"}}):
            with self.subTest(change=change), self.assertRaises(TypeError):
                Outer.from_dict(whole | change)
        self.assertEqual(Outer.from_dict(whole | {"alpha": 1}).alpha, 1)


def dataset(**changes) -> DatasetHparams:
    return DatasetHparams(**{"dataset_name": "digits", "batch_size": 8} | changes)


def training(**changes) -> TrainingHparams:
    return TrainingHparams(**{"optimizer_name": "sgd", "lr": 0.1, "training_steps": "1ep"} | changes)


NAN, INFINITY = float("nan"), float("inf")
STEPS = ("10epochs", "ep", "3it2ep", "-1ep", "1.5ep", "40", " 40ep", "")
OUT_OF_RANGE = [
    (dataset, "batch_size", (0, -1)),
    (dataset, "samples", (0,)),
    (dataset, "d_in", (0,)),
    (dataset, "teacher_seed", (-2,)),
    (training, "lr", (0.0, -0.1, NAN, INFINITY)),
    (training, "momentum", (-0.1, 1.0, NAN)),
    (training, "nesterov_momentum", (-0.1, 1.0, NAN)),
    (training, "delta", (0.0, 1.0, NAN)),
    (training, "weight_decay", (-1e-9, INFINITY, NAN)),
    (training, "patience", (-1,)),
    (training, "cooldown", (-1,)),
    (training, "training_steps", ("0ep", "0it", "0ep0it", *STEPS)),
    (training, "warmup_steps", STEPS),
    (training, "further_training", STEPS),
    (training, "milestone_steps", ("1ep,10epochs", "1ep,,2ep", "1ep, 2ep", ",")),
    (training, "lr_decay", ("cosin", "linear")),
    (training, "precision", ("float16", "float")),
    (lambda apex_fp16: training(apex_fp16=True, precision=apex_fp16), "apex_fp16", ("tf32", "bf16", "fp16", "float64")),
    (ExtractionHparams, "gamma", (0.0, 1.01, NAN)),
    (ExtractionHparams, "beta", (0.99, NAN, INFINITY)),
    (ExtractionHparams, "finetune_lr", (0.0, -1.0, INFINITY, NAN)),
    (ExtractionHparams, "finetune_batch_size", (0,)),
    (ExtractionHparams, "answers", ("", "float", "decimals", "noise:0", "noise:nan")),
    (ExtractionHparams, "finetune_training_steps", ("0ep", "0it", "0ep0it", *STEPS)),
]
AT_THE_LIMIT = [
    (dataset, {"batch_size": 1, "samples": 1, "d_in": 1, "teacher_seed": -1}),
    (training, {"momentum": 0.0, "nesterov_momentum": 0.0, "weight_decay": 0.0, "patience": 0, "cooldown": 0}),
    (training, {"momentum": 0.999, "delta": 0.999, "training_steps": "1it", "warmup_steps": "0ep", "milestone_steps": "0it,3ep20it"}),
    (ExtractionHparams, {"gamma": 1.0, "beta": 1.0, "finetune_batch_size": 1}),
]


class TestText(TestCase):
    def test_texts_are_converted_to_the_types_of_the_fields(self):
        texts = {"optimizer_name": "sgd", "lr": "0.1", "training_steps": "2ep", "patience": "7", "plateau_opt": "True", "delta": "0.5"}
        expected = TrainingHparams("sgd", 0.1, "2ep", patience=7, plateau_opt=True, delta=0.5)
        self.assertEqual(TrainingHparams.from_text(texts), expected)
        self.assertFalse(TrainingHparams.from_text(texts | {"plateau_opt": "False"}).plateau_opt)

    def test_unknown_names_are_ignored(self):
        self.assertEqual(
            DatasetHparams.from_text({"dataset_name": "digits", "batch_size": "5", "subset": "1"}), DatasetHparams("digits", 5)
        )

    def test_an_invalid_or_missing_value_is_an_error(self):
        with self.assertRaises(ValueError):
            DatasetHparams.from_text({"dataset_name": "digits", "batch_size": "many"})
        with self.assertRaises(TypeError):
            DatasetHparams.from_text({"dataset_name": "digits"})


class TestRanges(TestCase):
    def test_the_error_for_a_value_out_of_range_is_one_line_with_the_flag_and_the_valid_values(self):
        for make, field, values in OUT_OF_RANGE:
            for value in values:
                with self.subTest(field=field, value=value):
                    with self.assertRaises(ConfigError) as caught:
                        make(**{field: value})
                    self.assertRegex(str(caught.exception), rf"^--{field}: .*(valid: |write )[^\n]+$")

    def test_the_limits_of_the_ranges_are_valid(self):
        for make, values in AT_THE_LIMIT:
            with self.subTest(**values):
                self.assertEqual({name: getattr(make(**values), name) for name in values}, values)
