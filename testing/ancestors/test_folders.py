"""Folders of OpenLTH and of the published code go through the commands, which read them and leave every byte as it is."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from unittest import mock

import numpy as np
import torch

from datasets.teachers import run_folders
from foundations import ancestors, paths
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import base
from models import registry as models
from pruning.mask import Mask
from testing import dataset_files
from testing.ancestors import writers
from testing.ancestors.writers import OPENLTH, PUBLISHED
from testing.test_case import TestCase
from training import checkpointing, optimizers
from training.metric_logger import MetricLogger

ITERATIONS = 3  # in an epoch of 5 examples in batches of 2
FLAGS = ("--default_hparams=mnist_lenet_3", "--batch_size=2", "--training_steps=2ep")
STUDENTS = {
    "dataset_hparams": {
        "dataset_name": "teacher_dataset",
        "batch_size": 2,
        "teacher_name": PUBLISHED.name("train", writers.TRAIN).partition("_")[2],
        "teacher_seed": "-1",
        "samples": 5,
        "datagen": "mnist",
        "d_in": 784,
    },
    "model_hparams": {**writers.MODEL, "model_name": "students_mnist_lenet(2)_5"},
    "training_hparams": {"optimizer_name": "adam", "lr": 0.001, "training_steps": "100ep"},
    "extraction_hparams": {"gamma": 0.5, "beta": 6.0},
}


class FolderTestCase(TestCase):
    """Commands, and the digests of all files of the other programs before and after them."""

    def setUp(self):
        super().setUp()
        dataset_files.write_idx(os.path.join(os.environ["EC_DATASET_ROOT"], "mnist"))  # where both programs download it
        for picture in ("training.plotting.curves", "lottery.plotting.tickets", "lottery.plotting.comparison"):  # which take long
            patch = mock.patch(picture)
            patch.start()
            self.addCleanup(patch.stop)

    def digests(self, root: str) -> dict[str, str]:
        """The MD5 of every file of the other programs."""
        found = {}
        for folder, _, names in os.walk(root):
            for path in (os.path.join(folder, name) for name in names):
                if ancestors.program_of(os.path.relpath(path, root)):
                    with open(path, "rb") as file:
                        found[path] = hashlib.md5(file.read()).hexdigest()
        return found

    def run_unchanged(self, *commands: tuple[str, ...], root: str | None = None) -> list[str]:
        """The outputs of commands, which must succeed and leave the files of the other programs as they are."""
        before = self.digests(root or self.root)
        results = [self.command(*command) for command in commands]
        self.assertEqual([(status, err) for status, _, err in results], [(0, "")] * len(commands))
        self.assertTrue(before)
        self.assertEqual(self.digests(root or self.root), before)
        return [out for _, out, _ in results]

    def rows(self, *arguments: str) -> list[dict[str, str]]:
        """The runs that `runs` lists."""
        [text] = self.run_unchanged(("runs", "--format=csv", *arguments))
        return list(csv.DictReader(io.StringIO(text)))


class NameTest(TestCase):
    def test_the_writers_give_the_names_in_the_documents_of_both_programs(self):
        """OpenLTH shows the name of a ResNet-20, and the published code that of a network with 20 neurons."""
        dataset, model = {"dataset_name": "cifar10", "batch_size": 128}, {**writers.MODEL, "model_name": "cifar_resnet_20"}
        training = {"optimizer_name": "sgd", "lr": 0.1, "training_steps": "160ep", "momentum": 0.9, "milestone_steps": "80ep,120ep"}
        training |= {"gamma": 0.1, "weight_decay": 1e-4}
        resnet = {"dataset_hparams": dataset, "model_hparams": model, "training_hparams": training}
        self.assertEqual(OPENLTH.name("train", resnet), "train_71bc92a970b64a76d7ab7681764b0021")
        lenet = {
            "dataset_hparams": {"dataset_name": "mnist", "batch_size": 128},
            "model_hparams": {**writers.MODEL, "model_name": "mnist_lenet_20"},
            "training_hparams": {"optimizer_name": "sgd", "lr": 0.1, "training_steps": "40ep"},
        }
        self.assertEqual(PUBLISHED.name("train", lenet), "train_4e06f40307")

    def test_the_hyperparameters_in_a_log_give_the_name_of_the_folder(self):
        seeded = {**writers.LOTTERY, "training_hparams": {**writers.TRAINING, "data_order_seed": 0, "weight_decay": 0.0}}
        pretrained = {**writers.LOTTERY, "pretrain_dataset_hparams": writers.DATASET, "pretrain_training_hparams": writers.TRAINING}
        for program in (OPENLTH, PUBLISHED):
            for bundles in (writers.TRAIN, writers.LOTTERY, seeded, pretrained):
                name = program.name("any", bundles)
                groups = ancestors.recognise(name, ancestors.parse_log(program.log(bundles)))
                self.assertEqual(groups and groups.keys(), bundles.keys())
        zeros = ancestors.recognise(OPENLTH.name("any", seeded), ancestors.parse_log(OPENLTH.log(seeded)))
        self.assertEqual(zeros and zeros["training_hparams"]["data_order_seed"], "0")  # which the log does not show

    def test_changed_hyperparameters_do_not_give_the_name(self):
        text = OPENLTH.log(writers.TRAIN).replace("0.1", "0.2")
        self.assertIsNone(ancestors.recognise(OPENLTH.name("train", writers.TRAIN), ancestors.parse_log(text)))


class FormatTest(TestCase):
    def test_a_log_of_each_program_has_its_values(self):
        metrics = {("test_loss", 0): 2.5, ("test_accuracy", 0): 0.1, ("test_loss", 6): 1e-05, ("test_accuracy", 6): float("nan")}
        for program in (OPENLTH, PUBLISHED):
            logger = MetricLogger.from_str(program.metrics_text(metrics))
            self.assertEqual(logger.get("test_loss"), [(0, 2.5), (6, 1e-5)])
            self.assertEqual(str(logger.latest("test_accuracy")), "nan")

    def test_losses_of_students_are_lists_on_several_lines(self):
        losses = torch.arange(100) / 128
        logger = MetricLogger.from_str(PUBLISHED.metrics_text({("train_loss", 0): 1.0, ("train_individual_losses", 0): losses}))
        torch.testing.assert_close(torch.tensor(logger.latest("train_individual_losses")), losses, atol=1e-4, rtol=0)  # four decimals
        many = PUBLISHED.metrics_text({("train_loss", 0): 1.0, ("train_individual_losses", 0): torch.zeros(2000)})
        self.assertEqual(MetricLogger.from_str(many).names(), ["train_loss"])  # torch prints six of the 2000 values

    def test_a_log_of_this_framework_that_is_cut_short_is_still_damaged(self):
        for text in ("test_loss$0$2.5", "test_loss$0$2.5\ntest_l", "losses$0$[0.5, 2"):
            with self.assertRaises(ValueError):
                MetricLogger.from_str(text)

    def test_a_mask_and_its_report(self):
        mask = writers.level_mask(1)
        writers.save_mask(self.root, mask)
        self.assertEqual(Mask.load(self.root), Mask(mask))
        self.assertEqual(Mask.counts(self.root), (1882, 2382))

    def test_numpy_integers_in_a_checkpoint_are_plain_numbers(self):
        content = OPENLTH.checkpoint(writers.perceptron(0), ITERATIONS, 2, {})
        for number, version in enumerate((content, writers.as_numpy_1(content))):
            path = os.path.join(self.root, f"{number}.pth")
            writers.write(path, version)
            state = base.read_state(path)
            self.assertEqual((state["ep"], state["it"], type(state["ep"])), (2, 0, int))

    def test_other_objects_of_numpy_are_refused(self):
        path = os.path.join(self.root, "array.pth")
        for other in (np.zeros(1), np.dtype("i8"), np.str_("a"), np.datetime64(3, "s")):
            writers.write(path, writers.saved({"ep": other}))
            with self.assertRaises(ConfigError):
                base.read_state(path)


class CheckpointTest(TestCase):
    def restored(self, content: bytes) -> checkpointing.State:
        """The state of a training of students with Adam that has loaded a checkpoint."""
        writers.write(paths.checkpoint(self.root), content)
        model = models.get(ModelHparams("students_mnist_lenet(2)_5", "kaiming_normal", "uniform"))
        training_hparams = TrainingHparams("adam", 0.001, "100ep")
        optimizer = optimizers.get_optimizer(training_hparams, model)
        schedule = optimizers.Schedule(training_hparams, optimizer, ITERATIONS, Step(300, ITERATIONS))
        state = checkpointing.State(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), schedule)
        self.assertTrue(checkpointing.restore(self.root, state))
        return state

    def test_weights_and_moments_of_students_are_converted(self):
        theirs = writers.students(0, 2)
        state = self.restored(PUBLISHED.checkpoint(theirs, ITERATIONS, 7, {("train_loss", 0): 1.0, ("train_loss", 21): 0.5}))
        self.assertEqual((state.schedule.iteration, state.logger.latest("train_loss")), (21, 0.5))
        kernel = dict(state.model.named_parameters())["fc.weight"]
        self.assertTrue(torch.equal(kernel.data[1], theirs["fc_layers.1.fc"][..., 1]))
        moment = 0.1 * 2 * theirs["fc_layers.1.fc"]  # after one step on the sum of squares
        torch.testing.assert_close(state.optimizer.state[kernel]["exp_avg"][1], moment[..., 1])

    def test_a_checkpoint_of_several_devices_is_the_same(self):
        content = writers.students(0, 2)
        parallel = torch.load(io.BytesIO(PUBLISHED.checkpoint(content, ITERATIONS, 0, {})), weights_only=False)
        parallel["model_state_dict"] = {f"module.{name}": values for name, values in parallel["model_state_dict"].items()}
        state = self.restored(writers.saved(parallel))
        self.assertTrue(torch.equal(state.model.state_dict()["fc.bias"][1, 0], content["fc_layers.1.b"][:, 1]))


class ListingTest(FolderTestCase):
    def test_every_run_is_listed_with_its_hyperparameters_and_metrics(self):
        writers.train(self.root, OPENLTH, 1, ITERATIONS)
        writers.retrain(writers.lottery(self.root, OPENLTH, 1, ITERATIONS, 1), ITERATIONS, 1)
        writers.train(self.root, PUBLISHED, -1, ITERATIONS)
        writers.lottery(self.root, PUBLISHED, 3, ITERATIONS, 1)
        writers.extraction(self.root, -1, STUDENTS, 2)
        rows = self.rows("--columns=kind,seed,state,note,lr,test_accuracy,train_loss,level,weights_left,gamma")
        self.assertEqual({row["state"] for row in rows}, {"foreign"})
        found = sorted((row["kind"], row["note"].partition(";")[0], row["test_accuracy"][:3], row["weights_left"][:4]) for row in rows)
        published = ancestors.PUBLISHED
        trained = [("train", program, "0.7", "") for program in ("OpenLTH", published)]
        pruned = [("lottery", program, "0.7", "0.79") for program in ("OpenLTH", published)]
        expected = [("branch", "OpenLTH", "0.7", ""), ("extract", published, "", ""), *pruned, *trained]
        self.assertEqual(found, sorted(expected))
        [students] = [row for row in rows if row["kind"] == "extract"]
        self.assertEqual((students["seed"], students["lr"], students["gamma"]), ("-1", "0.001", "0.5"))

    def test_show_plot_diff_and_gc(self):
        writers.train(self.root, OPENLTH, 1, ITERATIONS)
        writers.extraction(self.root, -1, STUDENTS, 2)
        name, picture = OPENLTH.name("train", writers.TRAIN), os.path.join(self.root, "losses.png")
        plot = ("plot", name, "--metric=test_loss", "--x=iteration", f"--output={picture}")
        shown, *_, cleared = self.run_unchanged(("runs", "show", name[:12]), ("runs", "show", "ec_"), plot, ("runs", "gc"))
        self.assertIn("mnist_lenet_3", shown)
        self.assertIn("70.00%", shown)
        self.assertRegex(shown, "`EC.py runs import .*/replicate_1` copies it, so that it can be continued\n$")
        self.assertTrue(os.path.exists(picture))
        self.assertEqual(cleared, "There is nothing to move.\n")

    def test_an_incomplete_folder_is_neither_damaged_nor_unneeded(self):
        folder = writers.train(self.root, OPENLTH, 1, ITERATIONS, epochs=1)
        os.remove(os.path.join(folder, "hparams.log"))
        os.makedirs(os.path.join(self.root, "train_0123456789"))
        self.assertEqual({row["state"] for row in self.rows()}, {"foreign"})
        self.run_unchanged(("runs", "gc", "--yes"))


class TrainTest(FolderTestCase):
    def test_a_finished_run_is_not_trained_again(self):
        writers.train(self.root, OPENLTH, 1, ITERATIONS)
        [out] = self.run_unchanged(("train", *FLAGS, "--global_seed=1"))
        self.assertRegex(out, r"Copied from .*replicate_1, which is left as it is.\nFinished: test loss 0.7667, accuracy 70.00%\n$")
        rows = self.rows("--columns=seeds,state,test_accuracy")
        self.assertEqual([(row["seeds"], row["state"]) for row in rows], [("1", "finished")])  # not twice

    def test_an_interrupted_run_continues_at_its_checkpoint(self):
        for program, seed in ((OPENLTH, 1), (PUBLISHED, 4)):
            writers.train(self.root, program, seed, ITERATIONS, epochs=1)
            self.run_unchanged(("train", *FLAGS, f"--global_seed={seed}", "--quiet"))
            logger = MetricLogger.load(os.path.join(self.root, OPENLTH.name("train", writers.TRAIN), f"seed_{seed}", "main"))
            self.assertEqual([iteration for iteration, _ in logger.get("test_loss")], [0, 3, 6])
            self.assertEqual(logger.get("test_loss")[0][1], 2.3)  # of the other program

    def test_a_run_that_a_plateau_has_ended_between_two_records_is_finished(self):
        folder = writers.train(self.root, PUBLISHED, 4, ITERATIONS)
        os.rename(os.path.join(folder, "model_ep2_it0.pth"), os.path.join(folder, "model_ep2_it2.pth"))
        [out] = self.run_unchanged(("train", *FLAGS, "--global_seed=4"))
        self.assertRegex(out, "Finished: test loss 0.7667")

    def test_a_run_without_a_chosen_seed_says_that_there_is_a_replicate(self):
        writers.train(self.root, OPENLTH, 1, ITERATIONS)
        [out] = self.run_unchanged(("train", *FLAGS))
        self.assertIn("OpenLTH has trained replicate_1 of this experiment, which this run does not use; --global_seed 1 does.", out)

    def test_a_run_that_has_started_is_left_alone(self):
        self.assertEqual(self.command("train", *FLAGS, "--global_seed=1", "--quiet")[0], 0)
        writers.train(self.root, OPENLTH, 1, ITERATIONS)
        [out] = self.run_unchanged(("train", *FLAGS, "--global_seed=1"))
        self.assertNotIn("Copied", out)

    def test_both_are_teachers(self):
        for program, seed in ((OPENLTH, 1), (PUBLISHED, -1)):
            writers.train(self.root, program, seed, ITERATIONS)
            teacher = run_folders.find(program.name("train", writers.TRAIN)[:12], seed)
            weights = teacher.load().state_dict()
            self.assertTrue(torch.equal(weights["fc.weight"], writers.perceptron(2)["fc.weight"].double()))

    def test_students_learn_from_a_run_of_openlth(self):
        writers.train(self.root, OPENLTH, 1, ITERATIONS)
        teacher = (f"--teacher_name={OPENLTH.name('train', writers.TRAIN)}", "--teacher_seed=1", "--datagen=random:20")
        students = ("--default_hparams=students_mnist_lenet(2)_5", "--training_steps=1it", "--global_seed=1")
        self.run_unchanged(
            ("train", *students, *teacher, "--quiet"), ("extract", *students, *teacher, "--gamma=1", "--display_output_location")
        )


class LotteryTest(FolderTestCase):
    def test_further_levels_and_branches_start_from_the_levels_of_openlth(self):
        location = writers.lottery(self.root, OPENLTH, 1, ITERATIONS, 1)
        name = writers.retrain(location, ITERATIONS, 0)
        branch = ("lottery_branch", "retrain", *FLAGS, "--levels=0-1", "--global_seed=1")
        lottery, _, _ = self.run_unchanged(("lottery", *FLAGS, "--levels=2", "--global_seed=1"), branch, ("runs",))
        self.assertRegex(lottery, r" 1 +1,882 +79.01% +70.00%")
        seed = os.path.join(os.path.dirname(location), "seed_1")
        masks = [Mask.load(os.path.join(seed, f"level_{level}", "main")) for level in range(3)]
        self.assertEqual(masks[1], Mask(writers.level_mask(1)))
        self.assertLess(masks[2].unpruned, 1882)
        self.assertFalse((masks[2]["fc_layers.0.weight"] & ~masks[1]["fc_layers.0.weight"]).any())
        trained = [MetricLogger.load(os.path.join(seed, f"level_{level}", name)).latest("test_loss") for level in (0, 1)]
        self.assertAlmostEqual(trained[0], 2.3 / 3)  # that of OpenLTH
        self.assertNotAlmostEqual(trained[1], 2.3 / 3)

    def test_a_branch_is_the_first_command(self):
        writers.lottery(self.root, OPENLTH, 1, ITERATIONS, 0)
        branch = ("lottery_branch", "randomly_reinitialize", *FLAGS, "--levels=0", "--global_seed=1", "--quiet")
        self.run_unchanged(branch)
        status, _, err = self.command(*branch[:-3], "--levels=0-1", "--global_seed=1")
        self.assertEqual((status, "level 1 is not trained" in err), (2, True))

    def test_an_interrupted_level_continues_at_the_checkpoint_of_a_pruned_network(self):
        location = writers.lottery(self.root, PUBLISHED, 4, ITERATIONS, 1)
        folder, mask = os.path.join(location, "level_1", "main"), writers.level_mask(1)
        weights = {name: values * mask.get(name, 1) for name, values in writers.perceptron(2).items()}
        metrics = writers.evaluations(1, ITERATIONS, ("train", "test"))
        for name in ("logger", "model_ep2_it0.pth"):
            os.remove(os.path.join(folder, name))
        writers.write(os.path.join(folder, "checkpoint.pth"), PUBLISHED.checkpoint(weights, ITERATIONS, 1, metrics, mask))
        self.run_unchanged(("lottery", *FLAGS, "--levels=1", "--global_seed=4", "--quiet"))
        name = OPENLTH.name("lottery", writers.LOTTERY)
        logger = MetricLogger.load(os.path.join(self.root, name, "seed_4", "level_1", "main"))
        self.assertEqual([iteration for iteration, _ in logger.get("test_loss")], [0, 3, 6])
        self.assertEqual(logger.get("test_loss")[0][1], 2.3)

    def test_rewound_levels_start_at_their_step(self):
        bundles = {**writers.LOTTERY, "pretrain_dataset_hparams": writers.DATASET}
        bundles["pretrain_training_hparams"] = {**writers.TRAINING, "training_steps": "1it"}
        location = writers.lottery(self.root, OPENLTH, 1, ITERATIONS, 0, bundles)
        folder = os.path.join(location, "level_0", "main")
        os.rename(os.path.join(folder, "model_ep0_it0.pth"), os.path.join(folder, "model_ep0_it1.pth"))
        self.run_unchanged(("lottery", *FLAGS, "--rewinding_steps=1it", "--levels=1", "--global_seed=1", "--quiet"))
        start = base.read_state(os.path.join(os.path.dirname(location), "seed_1", "level_1", "main", "model_ep0_it1.pth"))
        self.assertTrue(torch.equal(start["fc.weight"], writers.perceptron(1)["fc.weight"]))


class ImportTest(FolderTestCase):
    def setUp(self):
        super().setUp()
        self.theirs = os.path.join(self.root, "theirs")

    def imported(self, folder: str) -> str:
        """The output of `runs import`."""
        return self.run_unchanged(("runs", "import", folder), root=self.theirs)[0]

    def test_a_results_folder_of_each_program(self):
        writers.train(self.theirs, PUBLISHED, -1, ITERATIONS)
        writers.lottery(self.theirs, OPENLTH, 2, ITERATIONS, 1)
        writers.extraction(self.theirs, -1, STUDENTS, 2)
        lines = self.imported(self.theirs).splitlines()
        self.assertEqual([" has been copied to " in line for line in lines], [True, False] * 3)
        commands = [line.split()[1:] for line in lines[1::2]]
        self.assertEqual([command[0] for command in commands], ["train", "extract", "lottery"])
        shutil.rmtree(self.theirs)
        outs = [self.command(*command, "--quiet")[0] for command in (commands[0], commands[2])]
        self.assertEqual(outs, [0, 0])
        rows = self.rows_here("--where=state=finished", "--columns=kind,seeds")
        self.assertEqual(sorted((row["kind"], row["seeds"]) for row in rows), [("lottery", "2"), ("train", "-1")])

    def rows_here(self, *arguments: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.command("runs", "--format=csv", *arguments)[1])))

    def test_a_copy_records_its_origin(self):
        folder = writers.train(self.theirs, OPENLTH, 7, ITERATIONS)
        self.imported(os.path.dirname(folder))
        name = OPENLTH.name("train", writers.TRAIN)
        with open(paths.imported(os.path.join(self.root, name, "seed_7")), encoding="utf-8") as file:
            record = json.load(file)
        self.assertEqual((record["program"], record["folder"]), ("OpenLTH", os.path.dirname(folder)))
        with open(os.path.join(folder, "logger"), "rb") as file:
            self.assertEqual(record["md5"]["main/logger"], hashlib.md5(file.read()).hexdigest())
        self.assertIn(f"Imported from {os.path.dirname(folder)} (OpenLTH)", self.command("runs", "show", name)[1])

    def test_what_cannot_be_imported_says_so_in_a_line(self):
        writers.extraction(self.theirs, -1, STUDENTS, 2)
        self.assertRegex(self.imported(self.theirs), "has not been imported: its teacher, train_[0-9a-f]{10}/seed_-1, is not in .*\n$")
        folder = writers.train(self.theirs, OPENLTH, 1, ITERATIONS)
        self.imported(self.theirs)
        self.assertRegex(self.imported(folder.removesuffix("/main")), r"has not been imported: .*/seed_1 exists\n$")
        unknown = {**writers.TRAIN, "model_hparams": {**writers.MODEL, "model_name": "mnist_conv_C16_M_F32"}}
        writers.train(self.theirs, PUBLISHED, 1, ITERATIONS, unknown)
        self.assertRegex(self.imported(self.theirs), "has not been imported: --model_name: 'mnist_conv_C16_M_F32' is not a model")
        changed = writers.train(self.theirs, OPENLTH, 2, ITERATIONS)
        writers.write(os.path.join(changed, "hparams.log"), OPENLTH.log(writers.TRAIN).replace("0.1", "0.2"))
        self.assertRegex(self.imported(os.path.dirname(changed)), "has not been imported: the hyperparameters in .* do not give the name")
        status, _, err = self.command("runs", "import", os.environ["EC_DATASET_ROOT"])
        self.assertEqual((status, err.count("\n")), (2, 1))

    def test_students_are_not_trained_again(self):
        writers.train(self.theirs, PUBLISHED, -1, ITERATIONS)
        writers.extraction(self.theirs, -1, STUDENTS, 2)
        command = self.imported(self.theirs).splitlines()[-1].split()[1:]
        status, _, err = self.command(*[part.strip("'") for part in command], "--gamma=1", "--quiet")
        self.assertEqual((status, "no cluster contains neurons of 100% of the 2 students" in err), (2, True))
