"""`EC.py` as its users meet it: welcome, help, errors, and where results would go."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from unittest import mock

import EC
from cli.completion.runner import CompletionRunner
from cli.runs import query
from cli.runs.runner import RunsRunner
from cli.runs.table import FORMATS
from extraction.desc import ExtractionDesc
from foundations.dataset_hparams import DatasetHparams
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from lottery.branch.runner import LotteryBranchRunner
from lottery.desc import LotteryDesc, PretrainingArgs
from lottery.runner import LevelArgs
from platforms import slurm
from platforms.local import Platform
from platforms.platform import get_platform
from platforms.system import signals
from pruning import base
from testing.test_case import TestCase
from training.desc import TrainingDesc
from training.job import JobArgs
from training.runner import TrainingRunner

CHECKOUT = os.path.dirname(os.path.abspath(EC.__file__))
TRAIN = ("train", "--default_hparams=digits_lenet_16")
STUDENTS = ("train", "--default_hparams=students_digits_lenet")
EXTRACT = ("extract", "--default_hparams=students_digits_lenet")
NO_TEACHER = "train_00000000000000000000000000000000"

# Arguments, then what the one line of complaint must hold: what is wrong, and what would have been right.
BAD_INPUT = [
    (("trian",), "'trian'", "did you mean 'train'", "extract"),
    (("train",), "--model_name is required", "--default_hparams"),
    (("train", "--default_hparams=digits_lenett"), "--default_hparams", "did you mean 'digits_lenet'", "mnist_lenet_P_Q_..."),
    (("train", "--default_hparams"), "--default_hparams", "expected one argument"),
    (("lottery", "--default_hparams=digits_lenet_16"), "--levels is required; give it\n"),
    (("runs", "why"), "arguments are required: COMMAND\n"),
    ((*TRAIN, "--platform=locla"), "--platform", "'locla'", "did you mean 'local'"),
    ((*TRAIN, "--platform=slurm", "--time=4h"), "--time:", "'4h'", "4:00:00"),
    ((*TRAIN, "--seeds=0-3"), "--seeds=0-3", "--help"),
    ((*TRAIN, "--lrr=1"), "--lrr", "did you mean '--lr'", "--help"),
    ((*TRAIN, "--l", "1"), "--l ", "--help"),
    ((*TRAIN, "--lr", "abc"), "--lr:", "'abc'", "a number"),
    ((*TRAIN, "--lr", "0"), "--lr:", "0.0", "more than 0"),
    ((*TRAIN, "--num_workers=-1"), "--num_workers:", "-1", "0 to 1,000"),
    ((*TRAIN, f"--batch_size=1{23 * '0'}"), "--batch_size:", "1 to 1,000,000,000", "memory"),
    ((*TRAIN, "--model_name=mlp_64_1000000000000_10"), "--model_name:", "75,000,000,000,010 weights", "GB of memory"),
    ((*TRAIN, "--platform=slurm", "--seeds=0-3000000000", "--dry_run"), "--seeds:", "at most 10,000"),
    (("lottery", *TRAIN[1:], "--levels=1000000"), "--levels:", "0 to 10,000"),
    (("lottery_branch", "retrain", *TRAIN[1:], "--levels=0-3000000000"), "--levels:", "at most 10,000"),
    ((*TRAIN, "--global_seed", "-2"), "--global_seed:", "-2", "-1"),
    ((*TRAIN, "--training_steps=10epochs"), "--training_steps:", "'10epochs'", "40ep"),
    ((*TRAIN, "--model_name=digits_lent_16"), "--model_name:", "'digits_lent_16'", "did you mean 'digits_lenet", "digits_lenet_P_Q_..."),
    ((*TRAIN, "--model_name=digits_lenet_0"), "--model_name:", "'digits_lenet_0'", "digits_lenet_P_Q_..."),
    ((*TRAIN, "--model_name=mnist_lenet_20"), "--model_name:", "784", "64"),
    ((*TRAIN, "--model_name=mlp_64_8_3"), "--model_name:", "3 outputs", "10"),
    ((*TRAIN, "--model_init=kaiming"), "--model_init:", "'kaiming'", "kaiming_normal"),
    ((*TRAIN, "--batchnorm_init=fix"), "--batchnorm_init:", "'fix'", "fixed", "uniform"),
    ((*TRAIN, "--act_fun=rleu"), "--act_fun:", "'rleu'", "did you mean 'relu'", "softplus"),
    ((*TRAIN, "--dataset_name=digit"), "--dataset_name:", "'digit'", "did you mean 'digits'", "teacher"),
    ((*TRAIN, "--optimizer_name=sdg"), "--optimizer_name:", "'sdg'", "did you mean 'sgd'", "adam"),
    (("train", "--default_hparams=cifar_resnet_8", "--centred"), "--centred:", "fully connected", "cifar_resnet_8"),
    ((*TRAIN, "--datagen=digits"), "--datagen:", "--dataset_name teacher"),
    ((*TRAIN, "--dataset_name=teacher"), "--teacher_name is required", "a hash"),
    ((*TRAIN, "--gamma=0.9"), "--gamma is called --delta here", "--help"),
    ((*STUDENTS, f"--teacher_name={NO_TEACHER}"), "--teacher_name:", NO_TEACHER, "a hash, the name of a model or a file of answers"),
    ((*STUDENTS, "--teacher_name=digit_lenet_16"), "--teacher_name:", "did you mean 'digits_lenet_16'"),
    ((*STUDENTS, "--teacher_name=missing.npz"), "--teacher_name:", "missing.npz does not exist"),
    ((*STUDENTS, "--teacher_seed=-2"), "--teacher_seed:", "-2", "-1"),
    ((*STUDENTS, "--datagen=digist"), "--datagen:", "'digist'", "did you mean 'digits'", "random"),
    ((*STUDENTS, "--datagen=mnist"), "--datagen:", "784", "64"),
    ((*STUDENTS, "--datagen=random:many"), "--datagen:", "'many'", "random:4000"),
    ((*STUDENTS, "--d_in=63"), "--d_in:", "63", "64"),
    ((*STUDENTS, "--samples=10"), "--samples:", "10", "1438 or more"),
    ((*EXTRACT, "--gamma=2"), "--gamma:", "2.0", "at most 1"),
    ((*EXTRACT, "--beta=0"), "--beta:", "0.0", "1 or more"),
    ((*EXTRACT, "--finetune_optimizer=adma"), "--finetune_optimizer:", "'adma'", "did you mean 'adam'", "levenberg_marquardt"),
    ((*EXTRACT, "--finetune_training_steps=10epochs"), "--finetune_training_steps:", "'10epochs'", "40ep"),
    ((*EXTRACT, "--model_name=digits_lenet_16"), "--model_name:", "digits_lenet_16", "students_digits_lenet(N)_P_Q_..."),
    ((*EXTRACT, "--dataset_name=digits"), "--dataset_name:", "digits", "valid: teacher"),
]


def in_new_process(code: str) -> str:
    """What some Python prints that starts in the checkout with nothing imported."""
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


class TestWelcome(TestCase):
    def test_without_a_command_all_commands_are_listed(self):
        for arguments in ((), ("--help",), ("-h",)):
            with self.subTest(arguments=arguments):
                status, out, err = self.command(*arguments)
                self.assertEqual((status, err), (0, ""))
                for name, runner in EC.COMMANDS.runners.items():
                    self.assertRegex(out, rf"(?m)EC\.py {name} .*{re.escape(runner.description())}$")

    def test_the_welcome_imports_nothing_heavy(self):
        heavy = ["torch", "numpy", "torchvision", "sklearn", "scipy", "matplotlib"]
        code = f"import sys, EC; status = EC.main([]); print(status, [name for name in {heavy} if name in sys.modules])"
        self.assertEqual(in_new_process(code).splitlines()[-1], "0 []")


class TestHelp(TestCase):
    def help(self, *arguments: str) -> str:
        status, out, err = self.command(*arguments, "--help")
        self.assertEqual((status, err, self.files()), (0, "", []))
        return out

    def test_help_lists_every_flag(self):
        shared = (JobArgs, Platform, DatasetHparams, ModelHparams, TrainingHparams)
        lottery = (*shared, LevelArgs, PretrainingArgs, base.PruningHparams)
        for command, groups in (("train", shared), ("extract", (*shared, ExtractionHparams)), ("lottery", lottery)):
            text = self.help(command, *(["--pruning_strategy=random"] if command == "lottery" else []))
            for name in ["platform", *(field.name for group in groups for field in dataclasses.fields(group))]:
                with self.subTest(command=command, flag=name):
                    self.assertRegex(text, rf"(?m)^ +--{name}(?![\w-])")

    def test_help_lists_the_flags_of_the_platform_that_is_named(self):
        text = self.help("train", "--platform=slurm")
        self.assertIn("\nPlatform Hyperparameters:\n", text)
        for field in dataclasses.fields(slurm.Platform):
            self.assertRegex(text, rf"(?m)^ +--{field.name}(?![\w-])")
        self.assertNotIn("--dry_run", self.help("train"))

    def test_help_lists_the_values_of_closed_lists(self):
        text = " ".join(self.help("train").split())
        for value in ("digits_lenet_P_Q_...", "kaiming_normal", "leaky_relu", "levenberg_marquardt", "cosine", "float64", "local"):
            with self.subTest(value=value):
                self.assertIn(value, text)

    def test_help_shows_the_defaults_of_a_model(self):
        for arguments, note in ((("train",), "required"), (("train", "--default_hparams=digits_lenet"), "default: 40ep")):
            with self.subTest(arguments=arguments):
                text = " ".join(self.help(*arguments).split())
                self.assertRegex(text, rf"--training_steps STR How long to train[^-]*\({note}\)")

    def test_help_imports_nothing_that_it_does_not_need(self):
        heavy = ["torchvision", "sklearn", "scipy", "matplotlib"]
        code = (
            "import sys, EC\n"
            "for command in ('train', 'extract', 'lottery'):\n"
            "    EC.main([command, '--default_hparams=students_digits_lenet', '--help'])\n"
            f"print([name for name in {heavy} if name in sys.modules])"
        )
        out = in_new_process(code)
        self.assertIn("--gamma", out)
        self.assertEqual(out.splitlines()[-1], "[]")

    def test_help_opens_with_two_examples(self):
        for name, runner in EC.COMMANDS.runners.items():
            with self.subTest(command=name):
                text = self.help(name)
                self.assertEqual(len(runner.examples()), 2)
                self.assertIn("examples:\n" + "".join(f"  python EC.py {line}\n" for line in runner.examples()), text)
                self.assertEqual(text.count("examples:"), 1)
                self.assertNotIn("--", text.partition("examples:")[0].replace("[--FLAG VALUE ...]", ""))

    def test_help_fits_the_terminal(self):
        for columns in (80, 120):
            with mock.patch.dict(os.environ, COLUMNS=str(columns)):
                for arguments in (("extract",), ("lottery_branch", "retrain"), ("runs",), ("runs", "diff"), ("completion",)):
                    lines = [line for line in self.help(*arguments).splitlines() if not line.startswith("  python EC.py ")]
                    self.assertLessEqual(max(map(len, lines)), columns, arguments)

    def test_a_subcommand_has_its_own_help(self):
        self.assertIn("\nRetrain the model with different hyperparameters.\n", self.help("lottery_branch", "retrain"))
        text = self.help("runs", "diff")
        self.assertRegex(text, r"^usage: EC\.py runs diff HASH HASH")
        self.assertIn("\nShow the hyperparameters in which two runs differ, and their results.\n", text)

    def test_help_shows_the_negative_form_only_of_switches_that_are_on(self):
        text = self.help("train")
        self.assertNotIn("--no-quiet", text)
        self.assertIn("--wait, --no-wait", text)
        self.assertEqual(self.command(*TRAIN, "--no-quiet", "--display_output_location")[0], 0)

    def test_commands_that_do_not_compute_take_no_platform(self):
        for command in ("runs", "completion"):
            self.assertNotIn("--platform", self.help(command))


class TestMistypes(TestCase):
    """Every closed list of values, each value mistyped in several ways."""

    TRUNK = ("--default_hparams=digits_lenet_16", "--levels=1")
    PLACES = (  # arguments before the value, and the values
        ((), EC.COMMANDS.runners),
        (("runs",), RunsRunner.subcommands()),
        (("lottery_branch",), LotteryBranchRunner.subcommands()),
        (("completion",), CompletionRunner.subcommands()),
        (("runs", "--format"), FORMATS),
        (("runs", "--columns"), [*query.METRICS, *query.ATTRIBUTES]),
        (("runs", "--sort"), [*query.METRICS, *query.ATTRIBUTES]),
        (("lottery_branch", "randomly_prune", *TRUNK, "--strategy"), ("layerwise", "global", "even", "identity")),
    )

    def wrong(self, value: str) -> set[str]:
        """A value in capitals, with a letter left out, with two in the wrong order, and the beginning of it."""
        middle = len(value) // 2
        swapped = value[: middle - 1] + value[middle] + value[middle - 1] + value[middle + 1 :]
        shorter = {value[:middle] + value[middle + 1 :], swapped, value[: max(4, middle)]} if len(value) > 4 else set()
        return {value.upper(), *shorter} - {value}

    def assert_suggests(self, *arguments: str, valid: Iterable[str]) -> None:
        status, out, err = self.command(*arguments)
        suggested = re.search(r"did you mean '([^']+)'", err)
        self.assertEqual((status, out, err.count("\n")), (2, "", 1), arguments)
        self.assertIsNotNone(suggested, f"{arguments}: {err}")
        self.assertIn(suggested[1], valid)

    def test_errors_suggest_the_nearest_word_or_name(self):
        for before, valid in self.PLACES:
            for wrong in {wrong for value in valid for wrong in self.wrong(value)} - set(valid):
                with self.subTest(before=before, wrong=wrong):
                    self.assert_suggests(*before, wrong, valid=[*valid, *query.known_names(())] if before[:1] == ("runs",) else valid)

    def test_errors_suggest_the_nearest_value_of_every_flag_with_a_closed_list(self):
        seen = set()
        for command, start in (("extract", ()), ("train", ()), ("lottery", ("--levels=1",))):
            model = "students_digits_lenet" if command == "extract" else "digits_lenet_16"
            arguments = [*start, f"--default_hparams={model}"]
            parser = EC.COMMANDS.parser(command, arguments)
            for action in parser._actions:
                valid = [value for value in parser.choices_of.get(action.dest, ()) if value.isidentifier()]
                if not valid or action.dest in seen:
                    continue
                seen.add(action.dest)
                for wrong in sorted({wrong for value in valid for wrong in self.wrong(value)} - set(valid)):
                    with self.subTest(command=command, flag=action.dest, wrong=wrong):
                        self.assert_suggests(command, *arguments, f"--{action.dest}={wrong}", valid=valid)
        self.assertLessEqual({"act_fun", "linkage", "boruta", "tracker", "tracker_mode", "platform", "pruning_strategy"}, seen)

    def test_errors_suggest_the_nearest_flag(self):
        for command in ("train", "extract"):
            parser = EC.COMMANDS.parser(command, [])
            flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
            for flag in flags:
                for wrong in (flag.upper().replace("_", "-"), flag[:4] + flag[5:]):
                    if wrong not in flags and len(flag) > 6:
                        with self.subTest(command=command, wrong=wrong):
                            self.assert_suggests(command, f"{wrong}=1", valid=flags)


class TestErrors(TestCase):
    def setUp(self):
        super().setUp()
        missing = mock.patch.dict(os.environ, {"EC_ROOT": os.path.join(self.root, "sims")})
        missing.start()
        self.addCleanup(missing.stop)

    def test_bad_input_is_an_error_in_one_line_and_writes_nothing(self):
        for arguments, *explanation in BAD_INPUT:
            with self.subTest(arguments=arguments):
                status, out, err = self.command(*arguments)
                self.assertEqual((status, out, err.count("\n"), err[-1:]), (2, "", 1, "\n"))
                for text in explanation:
                    self.assertIn(text, err)
                self.assertEqual(os.listdir(self.root), [])

    def test_bad_input_leaves_the_platform_as_it_was(self):
        before = get_platform()
        self.command(*TRAIN, "--act_fun=rleu", "--num_workers=2")
        self.assertIs(get_platform(), before)

    def test_an_error_has_an_exit_status_and_no_traceback(self):
        done = subprocess.run([sys.executable, "EC.py", "trian"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1))

    def test_a_defect_keeps_its_traceback(self):
        with mock.patch.object(TrainingRunner, "run", side_effect=ZeroDivisionError), self.assertRaises(ZeroDivisionError):
            self.command(*TRAIN)

    def test_a_stopped_run_has_exit_status_75_and_says_how_to_continue(self):
        with mock.patch.object(TrainingRunner, "run", side_effect=signals.Stopped("run has stopped at ep1_it0")):
            status, out, err = self.command(*TRAIN)
        self.assertEqual((status, out, err.count("\n")), (75, "", 1))
        self.assertRegex(err, "^run has stopped at ep1_it0.*same command")

    def test_an_interrupted_run_says_how_to_continue(self):
        with mock.patch.object(TrainingRunner, "run", side_effect=KeyboardInterrupt):
            status, _, err = self.command(*TRAIN)
        self.assertEqual(status, 130)
        self.assertIn("same command", err)


class TestOutputLocation(TestCase):
    def location(self, *arguments: str) -> str:
        status, out, err = self.command(*arguments, "--display_output_location")
        self.assertEqual((status, err, self.files(), out.count("\n")), (0, "", [], 1))
        return out.rstrip("\n")

    def folder_of(self, desc: TrainingDesc, seed: int = -1) -> str:
        return os.path.join(self.root, desc.hashname, f"seed_{seed}", "main")

    def test_the_output_location_is_the_folder_of_the_run(self):
        canonical = (
            "Hparams(batch_size=128, dataset_name='digits');"
            "Hparams(batchnorm_init='uniform', model_init='kaiming_normal', model_name='digits_lenet_16');"
            "Hparams(lr=0.5, momentum=0.9, optimizer_name='sgd', training_steps='40ep')"
        )
        folder = os.path.join(self.root, f"train_{hashlib.md5(canonical.encode()).hexdigest()}", "seed_5", "main")
        self.assertEqual(self.location(*TRAIN, "--lr=0.5", "--momentum", "0.9", "--global_seed=5"), folder)

    def test_flags_alone_name_the_run_that_the_defaults_name(self):
        flags = ["--dataset_name=digits", "--batch_size=128", "--model_name=digits_lenet_16", "--model_init=kaiming_normal"]
        flags += ["--batchnorm_init=uniform", "--optimizer_name=sgd", "--lr=0.1", "--training_steps=40ep"]
        self.assertEqual(self.location("train", *flags), self.location(*TRAIN))

    def test_a_family_stands_for_its_default_member(self):
        self.assertEqual(self.location("train", "--default_hparams", "digits_lenet"), self.location(*TRAIN))
        self.assertEqual(self.location(*TRAIN, "--model_name=digits_lenet"), self.location(*TRAIN))

    def test_flags_outside_the_experiment_do_not_change_the_output_location(self):
        flags = ("--quiet", "--evaluate_only_at_end", "--num_workers=2", "--platform=local", "--extra_training=5ep")
        self.assertEqual(self.location(*TRAIN, *flags), self.folder_of(TrainingDesc.default_for("digits_lenet_16")))

    def test_an_extraction_is_in_the_folder_of_its_students_and_does_not_train_its_teacher(self):
        desc = ExtractionDesc.default_for("students_digits_lenet")
        desc.dataset_hparams.teacher_name = TrainingDesc.default_for("digits_lenet_16").hashname
        desc.dataset_hparams.datagen = "digits+random:4000"
        self.assertEqual(self.location(*EXTRACT), os.path.join(self.folder_of(desc), desc.clustering_hashname))

    def test_levels_of_a_lottery_ticket_experiment_have_a_folder_each(self):
        folder = os.path.join(self.root, LotteryDesc.default_for("digits_lenet_16").hashname, "seed_-1")
        status, out, err = self.command("lottery", TRAIN[1], "--levels=2", "--display_output_location")
        self.assertEqual((status, err, self.files()), (0, "", []))
        self.assertEqual(out.splitlines(), [os.path.join(folder, f"level_{level}", "main") for level in range(3)])

    def test_the_spelling_of_teacher_and_queries_does_not_change_the_output_location(self):
        other = ("--teacher_name=digits_lenet_16", "--datagen=random+digits", "--samples=5437", "--d_in=64")
        for command in (STUDENTS, EXTRACT):
            with self.subTest(command=command[0]):
                self.assertEqual(self.location(*command, *other), self.location(*command))

    def test_the_activation_of_the_students_is_that_of_their_default_teacher(self):
        desc = ExtractionDesc.default_for("students_digits_lenet")
        desc.model_hparams.act_fun = "tanh"
        teacher = TrainingDesc.default_for("digits_lenet_16")
        teacher.model_hparams.act_fun = "tanh"
        desc.dataset_hparams.teacher_name = teacher.hashname
        desc.dataset_hparams.datagen = "digits+random:4000"
        self.assertEqual(os.path.dirname(self.location(*EXTRACT, "--act_fun=tanh")), self.folder_of(desc))


class TestJob(TestCase):
    def test_the_run_sees_the_platform_that_the_flags_describe(self):
        seen = []
        with mock.patch.object(TrainingRunner, "run", lambda runner: seen.append(get_platform())):
            self.assertEqual(self.command(*TRAIN, "--num_workers=3")[0], 0)
        self.assertEqual([platform.num_workers for platform in seen], [3])

    def test_the_run_gets_the_job_that_the_flags_describe(self):
        seen = []
        with mock.patch.object(TrainingRunner, "run", lambda runner: seen.append(runner.job)):
            self.command(*TRAIN, "--global_seed=5", "--quiet")
        self.assertEqual(seen, [JobArgs(global_seed=5, quiet=True, default_hparams="digits_lenet_16")])
