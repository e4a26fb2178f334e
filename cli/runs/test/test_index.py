"""Which runs there are and in which state, whatever else lies in their folders."""

from __future__ import annotations

import json
import math
import os
import shutil
from unittest import mock

from cli.runs import index, query, records
from cli.runs.index import Run
from cli.runs.names import Names
from foundations import paths
from foundations.errors import ConfigError
from platforms.system import locks, processes
from testing import run_folders
from testing.run_folders import write
from testing.test_case import TestCase


class TestIndex(TestCase):
    def scan(self) -> list[Run]:
        return index.scan(self.root)

    def only(self) -> Run:
        (run,) = self.scan()
        return run


class TestFinished(TestIndex):
    def test_a_train_run_has_its_hyperparameters_and_its_last_metrics(self):
        desc = run_folders.training(0.3, "tanh")
        run_folders.train_run(self.root, desc, 5, 0.8)
        run = self.only()
        self.assertEqual((run.kind, run.name, run.part, run.seed, run.state), ("train", desc.hashname, "", 5, "finished"))
        self.assertEqual({name: run.hparams[name] for name in ("lr", "act_fun", "delta")}, {"lr": 0.3, "act_fun": "tanh", "delta": None})
        self.assertEqual(run.metrics, {"test_accuracy": 0.8, "test_loss": 1 - 0.8})
        self.assertEqual(run.size, sum(os.path.getsize(os.path.join(self.root, name)) for name in self.files()))

    def test_every_clustering_of_an_extraction_is_a_run(self):
        teacher = run_folders.training().hashname
        for gamma, identified in ((0.7, True), (0.8, False)):
            run_folders.extract_run(self.root, run_folders.extraction(teacher, gamma), 0, identified, 1e-12)
        found = {run.hparams["gamma"]: run for run in self.scan()}
        self.assertEqual(
            {gamma: (run.state, run.metrics["identified"]) for gamma, run in found.items()},
            {0.7: ("finished", True), 0.8: ("finished", False)},
        )
        self.assertEqual(found[0.7].metrics["max_relative_error"], 1e-12)
        self.assertEqual(found[0.7].metrics["seconds"], 2.0)

    def test_a_lottery_has_the_metrics_of_its_last_level_and_its_branches_are_runs(self):
        desc = run_folders.lottery()
        place = run_folders.lottery_run(self.root, desc, 0, 2)
        branch = run_folders.finish(os.path.join(place, "level_1", f"lottery_branch_retrain_{'a' * 32}"), 0.5)
        content = json.loads(desc.to_json(seed=0)) | {"branch_hparams": {"retrain_t": {"lr": 7.0}, "seed": 3}}
        write(paths.hparams_dict(branch), json.dumps(content))
        trunk, retrained = self.scan()
        self.assertEqual((trunk.kind, trunk.state, trunk.metrics["level"]), ("lottery", "finished", 2))
        self.assertAlmostEqual(trunk.metrics["weights_left"], 0.64)
        self.assertEqual((retrained.kind, retrained.state, retrained.metrics["test_accuracy"]), ("branch", "finished", 0.5))
        names = ("branch", "retrain_t_lr", "branch_seed", "lr")
        self.assertEqual([retrained.hparams[name] for name in names], ["retrain", 7.0, 3, 0.1])

    def test_a_hyperparameter_that_an_older_record_lacks_has_its_default(self):
        self.assertEqual(records.flatten({"training_hparams": {"lr": 1.0}})["patience"], 100)
        self.assertEqual(records.flatten({"pretrain_training_hparams": {"lr": 1.0}})["pretrain_lr"], 1.0)

    def test_metrics_that_are_no_numbers_are_nan(self):
        folder = run_folders.train_run(self.root, run_folders.training(), 0)
        for text in ("null", "NaN"):
            write(paths.logger(folder), f"train_loss$0$1.0\ntrain_loss$480${text}\n")
            run = self.only()
            self.assertEqual((run.state, math.isnan(run.metrics["train_loss"])), ("finished", True))

    def test_only_the_end_of_a_long_log_is_read(self):
        folder = run_folders.train_run(self.root, run_folders.training(), 0, 0.75)
        with open(paths.logger(folder)) as file:
            text = file.read()
        write(paths.logger(folder), "garbage\n" * 100_000 + text)
        self.assertEqual(self.only().metrics["test_accuracy"], 0.75)


class TestUnfinished(TestIndex):
    def start(self, seed: int = 0) -> str:
        desc = run_folders.training()
        return run_folders.record(desc.run_path(self.root, seed), desc, seed)

    def test_the_note_of_an_interrupted_run_is_the_step_of_its_checkpoint(self):
        folder = self.start()
        self.assertEqual((self.only().state, self.only().note), ("interrupted", "before the first checkpoint of 40ep"))
        write(paths.progress(folder), '{"iteration": 120, "epoch": 10, "planned_iterations": 480}\n')
        self.assertEqual(self.only().note, "before the first checkpoint of 40ep", "without a checkpoint it begins anew")
        for path in (paths.previous_checkpoint(folder), paths.checkpoint(folder)):
            write(path, "weights")
            self.assertEqual(self.only().note, "step 120 of 40ep")

    def test_where_the_progress_is_missing_or_damaged_the_step_is_unknown(self):
        folder = self.start()
        write(paths.checkpoint(folder), "of an older version")
        self.assertEqual(self.only().note, "an unknown step of 40ep")
        for text in ("", '{"iteration": 12', "[120]", "{}", '{"iteration": "\\u001b[2J"}', '{"iteration": 1.5}', '{"iteration": true}'):
            write(paths.progress(folder), text)
            self.assertEqual((self.only().state, self.only().note), ("interrupted", "an unknown step of 40ep"), text)

    def test_a_locked_run_is_running_while_the_process_lives_and_interrupted_afterwards(self):
        folder = self.start()
        with locks.held(folder):
            self.assertEqual(self.only().state, "running")
            self.assertIn(f"process {os.getpid()}", self.only().note)
        write(paths.lock(folder), processes.this().to_json().replace(f'"pid": {os.getpid()}', f'"pid": {processes.MAX_PID}'))
        self.assertEqual(self.only().state, "interrupted")

    def test_a_lock_from_another_machine_is_valid_while_it_is_updated(self):
        folder = self.start()
        path = write(paths.lock(folder), processes.this().to_json().replace(processes.this().machine, "elsewhere"))
        self.assertEqual(self.only().state, "running")
        os.utime(path, (1, 1))
        self.assertEqual(self.only().state, "interrupted")

    def test_a_run_with_an_error_is_failed_until_the_next_start(self):
        folder = self.start()
        with self.assertRaises(ZeroDivisionError), locks.held(folder):
            1 / 0  # noqa: B018
        self.assertEqual((self.only().state, self.only().note), ("failed", "ZeroDivisionError: division by zero"))
        with locks.held(folder):
            pass
        self.assertEqual(self.only().state, "interrupted")

    def test_an_extraction_without_a_report_is_interrupted(self):
        desc = run_folders.extraction(run_folders.training().hashname)
        run_folders.train_run(self.root, desc)
        self.assertEqual((self.only().state, self.only().note), ("interrupted", "students trained, no report yet"))

    def test_students_whose_hypothesis_a_race_has_dropped_are_not_interrupted(self):
        desc = run_folders.extraction(run_folders.training().hashname)
        folder = run_folders.train_run(self.root, desc)
        with open(paths.dropped(folder), "w") as file:
            file.write("{}")
        self.assertEqual((self.only().state, self.only().note), ("dropped", "out of the race"))

    def test_a_lottery_between_levels_is_interrupted(self):
        place = run_folders.lottery_run(self.root, run_folders.lottery(), 0, 1)
        os.unlink(paths.levels(place, 1))
        self.assertEqual((self.only().state, self.only().note), ("interrupted", "level 1: trained"))


class TestAnything(TestIndex):
    def test_damage_is_a_state(self):
        damages = {
            "hparams_dict": ('{"dataset_hparams": {', "hparams_dict"),
            "logger": ("test_accuracy$1$0.5\nrubbish\n", "logger"),
            "logger ": ("test_accuracy$1$0.5\ntest_acc", "cut short"),
            "hparams_dict ": ("[" * 100_000, "hparams_dict"),
            "hparams_dict  ": ("x" * (records.LONGEST_RECORD + 1), "more than"),
        }
        for name, (content, said) in damages.items():
            with self.subTest(name=name, said=said):
                folder = run_folders.train_run(self.root, run_folders.training())
                write(os.path.join(folder, name.strip()), content)
                self.assertEqual(self.only().state, "damaged")
                self.assertIn(said, self.only().note)

    def test_a_damaged_report_is_a_state(self):
        folder = run_folders.extract_run(self.root, run_folders.extraction(run_folders.training().hashname))
        for content in ("", "{", "[1]", '{"identified": true}', '{"identified": [], "certificate": {"accepted": 1}}'):
            with self.subTest(content=content):
                write(paths.report(folder), content)
                self.assertEqual((self.only().state, dict(self.only().metrics)), ("damaged", {}))

    def test_folders_in_any_condition_are_listed(self):
        train = run_folders.training().hashname
        os.makedirs(os.path.join(self.root, train, "seed_0", "main", "logger"))  # a folder where a file should be
        os.makedirs(os.path.join(self.root, "my results"))
        os.makedirs(os.path.join(self.root, f"lottery_{'b' * 32}", "seed_x"))
        os.symlink(self.root, os.path.join(self.root, "loop"))
        os.symlink(os.path.join(self.root, "self"), os.path.join(self.root, "self"))
        pipe = run_folders.record(os.path.join(self.root, f"train_{'c' * 32}", "seed_0", "main"), run_folders.training(), 0)
        os.mkfifo(paths.logger(pipe))
        write(os.path.join(self.root, "answers.npz"))
        for name in (index.TRASH, "slurm", ".hidden", "datasets"):
            os.makedirs(os.path.join(self.root, name))
        found = {run.name: run.state for run in index.scan(self.root, [os.path.join(self.root, "datasets")])}
        expected = {train: "damaged", "my results": "foreign", f"lottery_{'b' * 32}": "damaged", "loop": "foreign"}
        self.assertEqual(found, expected | {f"train_{'c' * 32}": "interrupted"})

    def test_the_empty_folder_of_a_start_that_wrote_nothing_is_not_damaged(self):
        for path in ("train_{}/seed_0/main", "extract_{}/seed_-1/main", "lottery_{}/seed_2/level_0/main", "lottery_{}/seed_2", "train_{}"):
            with self.subTest(path=path):
                folder = os.path.join(self.root, path.format("e" * 32))
                os.makedirs(folder)
                self.assertEqual((self.only().state, self.only().note), ("interrupted", "nothing was written"))
                write(os.path.join(folder, ".nfs0001"))
                self.assertEqual(self.only().state, "interrupted")
                write(os.path.join(folder, "notes.txt"))
                self.assertEqual(self.only().state, "damaged")
                shutil.rmtree(os.path.join(self.root, path.partition("/")[0].format("e" * 32)))

    def test_names_that_begin_with_a_dot_are_no_runs(self):
        folder = run_folders.train_run(self.root, run_folders.training(), 0)
        place = run_folders.lottery_run(self.root, run_folders.lottery(), 0)
        before = [(run.name, run.seed, run.part, run.state, dict(run.metrics)) for run in self.scan()]
        experiment, seed = os.path.dirname(os.path.dirname(folder)), os.path.dirname(folder)
        hidden = (self.root, experiment, seed, folder, place, os.path.join(place, "level_1"), os.path.join(place, "level_1", "main"))
        for parent in hidden:
            for name in (".DS_Store", "._logger", "._model_ep9_it0.pth", ".nfs0001", "._level_7", "._seed_9"):
                write(os.path.join(parent, name), "hidden")
            for name in (".ipynb_checkpoints", f".train_{'a' * 32}", ".seed_9", ".level_7", ".main"):
                write(os.path.join(parent, name, "logger"), "hidden")
        self.assertEqual([(run.name, run.seed, run.part, run.state, dict(run.metrics)) for run in self.scan()], before)

    def test_a_folder_with_hidden_files_only_is_empty(self):
        write(os.path.join(self.root, f"train_{'a' * 32}", ".DS_Store"))
        self.assertEqual(self.only().note, "nothing was written")
        write(os.path.join(self.root, f"train_{'a' * 32}", "seed_0", "main", ".DS_Store"))
        self.assertEqual(self.only().note, "nothing was written")

    def test_a_run_that_cannot_be_read_is_damaged(self):
        folder = run_folders.train_run(self.root, run_folders.training())
        with mock.patch.object(index.os, "open", side_effect=PermissionError(13, "Permission denied")):
            self.assertEqual((self.only().state, self.only().note), ("damaged", "hparams_dict cannot be read (Permission denied)"))
        self.assertTrue(os.path.exists(folder))

    def test_a_run_of_openlth_is_foreign_and_has_the_values_of_its_log(self):
        folder = os.path.join(self.root, f"train_{'d' * 32}", "replicate_1", "main")
        write(paths.hparams_log(folder), "Training Hyperparameters\n    * lr => 0.1\n    * optimizer_name => sgd\n")
        write(paths.logger(folder), "test_loss,0,2.5\ntest_loss,9,0.5\ntest_accuracy,9,0.75\n")
        run = self.only()
        self.assertEqual((run.state, run.seed, run.note), ("foreign", 1, "OpenLTH; unfinished"))
        self.assertEqual([run.hparams[name] for name in ("lr", "optimizer_name", "momentum")], [0.1, "sgd", 0.0])  # the last is a default
        self.assertEqual(run.metrics, {"test_loss": 0.5, "test_accuracy": 0.75})

    def test_an_absent_root_has_no_runs(self):
        self.assertEqual(index.scan(os.path.join(self.root, "absent")), [])


class TestNames(TestIndex):
    def names(self, *hashes: str) -> Names:
        for name in hashes:
            run_folders.finish(run_folders.record(os.path.join(self.root, name, "seed_0", "main"), run_folders.training(), 0))
        return Names(self.scan())

    def test_short_hashes_are_as_short_as_is_unique(self):
        names = self.names(f"train_abcdef12{'0' * 24}", f"train_abcdef13{'0' * 24}", f"train_b{'0' * 31}")
        self.assertEqual([names.short(run) for run in self.scan()], ["abcdef12", "abcdef13", "b00000"])
        for run in self.scan():
            self.assertEqual({found.name for found in names.find(names.short(run))}, {run.name})

    def test_a_prefix_is_valid_with_and_without_the_kind(self):
        name = f"train_abc{'0' * 29}"
        names = self.names(name, f"extract_abd{'0' * 29}")
        for text in ("abc", "train_abc", "train", name, name.removeprefix("train_")):
            self.assertEqual([run.name for run in names.find(text)], [name])

    def test_a_copy_of_a_folder_makes_no_prefix_ambiguous(self):
        name = f"train_abc{'0' * 29}"
        names = self.names(name, f"{name}_old")
        for text in ("abc", "train_abc", name):
            self.assertEqual([run.name for run in names.find(text)], [name])
        self.assertEqual([run.name for run in names.find(f"{name}_old")], [f"{name}_old"])

    def test_an_ambiguous_or_unknown_prefix_is_an_error_with_the_candidates(self):
        names = self.names(f"train_abc{'0' * 29}", f"extract_abd{'0' * 29}")
        with self.assertRaisesRegex(ConfigError, "'ab': the hashes of 2 runs .*extract_abd0000000, train_abc0000000"):
            names.find("ab")
        with self.assertRaisesRegex(ConfigError, "'abe': no hash of a run begins with it"):
            names.find("abe")

    def test_a_part_is_named_after_a_slash(self):
        teacher = run_folders.training().hashname
        for gamma in (0.7, 0.8):
            run_folders.extract_run(self.root, run_folders.extraction(teacher, gamma))
        names = Names(self.scan())
        for run in self.scan():
            self.assertEqual(names.find(names.short(run)), [run])
        with self.assertRaisesRegex(ConfigError, "the hashes of 2 runs begin with it; valid: ext/clustering_"):
            names.find("ext")
        self.assertEqual(len(names.find("ext", whole=True)), 2)


class TestRows(TestIndex):
    def test_seeds_are_one_row_with_mean_and_sample_deviation(self):
        for seed, accuracy in enumerate((0.8, 0.9, 0.7)):
            run_folders.train_run(self.root, run_folders.training(), seed, accuracy)
        (row,) = query.group(self.scan())
        self.assertAlmostEqual(row.value("test_accuracy"), 0.8)
        self.assertAlmostEqual(row.deviation("test_accuracy"), 0.1)
        self.assertEqual((row.value("lr"), row.deviation("lr")), (0.1, None))
