"""The command `runs` as its users meet it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import EC
from cli.runs import index, table, trash
from foundations import paths
from foundations.errors import Busy
from platforms.system import lock_files, processes
from testing import run_folders
from testing.run_folders import write
from testing.test_case import TestCase

TRAIN = ("--default_hparams=digits_lenet_16", "--lr=0.3")


class RunsTestCase(TestCase):
    def ask(self, *arguments: str) -> str:
        status, out, err = self.command("runs", *arguments)
        self.assertEqual((status, err), (0, ""))
        return out

    def refuse(self, *arguments: str, status: int = 2) -> str:
        found, out, err = self.command("runs", *arguments)
        self.assertEqual((found, err.count("\n")), (status, 1), err)
        return err

    def everything(self) -> dict[str, tuple]:
        """Every file and folder with its content and its time."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for path in [folder, *(os.path.join(folder, name) for name in names)]:
                content = None if os.path.isdir(path) else Path(path).read_bytes()
                found[path] = content, os.stat(path).st_mtime_ns
        return found


class TestLooking(RunsTestCase):
    def setUp(self):
        super().setUp()
        self.descs = [run_folders.training(lr) for lr in (0.1, 0.3)]
        for seed, accuracy in enumerate((0.8, 0.9)):
            run_folders.train_run(self.root, self.descs[0], seed, accuracy)
        run_folders.train_run(self.root, self.descs[1], 0, 0.5)
        self.short = [desc.hashname.removeprefix("train_")[:6] for desc in self.descs]

    def test_a_table_has_a_line_for_each_experiment_and_a_column_for_each_difference(self):
        heading, *lines = self.ask("--sort=lr").splitlines()
        self.assertEqual(heading.split(), ["kind", "hash", "seeds", "state", "lr", "test_accuracy", "date", "size"])
        self.assertRegex(lines[0], rf"^train +{self.short[0]} +0-1 +finished +0\.1 +85\.00 ± 7\.07% +20\d\d-")
        self.assertRegex(lines[1], rf"^train +{self.short[1]} +0 +finished +0\.3 +50\.00% +20\d\d-")
        self.assertEqual(len(lines), 2)

    def test_each_seed_shows_a_line_for_each_seed(self):
        lines = self.ask("--each_seed", "--sort=-test_accuracy", "--columns=seed,test_accuracy").splitlines()
        self.assertEqual([line.split() for line in lines[1:]], [["1", "90.00%"], ["0", "80.00%"], ["0", "50.00%"]])

    def test_csv_and_json_have_the_same_numbers(self):
        flags = ("--columns=hash,lr,seeds,test_accuracy", "--sort=lr")
        records = json.loads(self.ask(*flags, "--format=json"))
        self.assertEqual([record["lr"] for record in records], [0.1, 0.3])
        self.assertEqual((records[0]["hash"], records[0]["seeds"]), (self.descs[0].hashname.removeprefix("train_"), [0, 1]))
        self.assertAlmostEqual(records[0]["test_accuracy_spread"], 0.1 / 2**0.5)
        rows = list(csv.DictReader(io.StringIO(self.ask(*flags, "--format=csv"))))
        self.assertEqual([float(row["test_accuracy"]) for row in rows], [record["test_accuracy"] for record in records])
        self.assertEqual((rows[0]["seeds"], rows[1]["test_accuracy_spread"]), ("0 1", ""))

    def test_a_table_fits_the_terminal(self):
        run_folders.lottery_run(self.root, run_folders.lottery())
        run_folders.extract_run(self.root, run_folders.extraction(self.descs[0].hashname))
        for width in (80, 100, 150, 400):
            with self.subTest(width=width), mock.patch.dict(os.environ, COLUMNS=str(width)):
                *lines, last = self.ask().splitlines()
                note = last.startswith("No room for: ")
                self.assertLessEqual(max(map(len, lines if note else [*lines, last])), width)
                self.assertEqual(note, width < 400)

    def test_listing_changes_no_file(self):
        run_folders.lottery_run(self.root, run_folders.lottery())
        write(os.path.join(self.root, f"train_{'e' * 32}", "seed_0", "main", "hparams_dict"), "{")
        before = self.everything()
        for arguments in ((), ("show", self.short[0]), ("diff", *self.short), ("why", "train", *TRAIN), ("--format=json",)):
            self.ask(*arguments)
        self.ask("rm", self.short[0])
        self.ask("gc")
        self.ask("restore")
        self.assertEqual(self.everything(), before)

    def test_a_run_is_shown_with_its_seeds_its_hyperparameters_and_its_files(self):
        folder = self.descs[0].run_path(self.root, 0)
        write(os.path.join(folder, "provenance.json"), json.dumps({"command": "python EC.py train --lr 0.1"}))
        text = self.ask("show", self.short[0])
        for pattern in (r"\n +0 +finished", r"\n +test_accuracy +85\.00 ± 7\.07%", r"\n  \* lr +0\.1\n", r"\n    patience +100\n"):
            self.assertRegex(text, pattern)
        self.assertRegex(text, r"B  main/checkpoint\.pth\n")
        self.assertIn("python EC.py train --lr 0.1\n", text)

    def test_diff_shows_only_the_hyperparameters_that_differ_and_the_results(self):
        lines = self.ask("diff", self.descs[0].hashname, self.short[1]).splitlines()
        self.assertEqual([line.split() for line in lines[:3]], [self.short, ["lr", "0.1", "0.3"], []])
        self.assertRegex(lines[3], r"^test_accuracy +85\.00 ± 7\.07% +\d")

    def test_why_shows_the_run_and_the_most_similar_runs(self):
        text = self.ask("why", "train", *TRAIN)
        self.assertIn(f"{self.descs[1].hashname}\nexists:\n", text)
        text = self.ask("why", "train", *TRAIN, "--act_fun=tanh")
        lines = text.splitlines()
        location = self.command("train", *TRAIN, "--act_fun=tanh", "--display_output_location")[1]
        self.assertEqual((lines[0], lines[1]), (os.path.relpath(location, self.root).split(os.sep)[0], "does not exist"))
        self.assertRegex(text, rf"\ntrain {self.short[1]} differs in 1 hyperparameter:\n    act_fun +relu, in the command tanh\n")
        self.assertLess(text.index(self.short[1]), text.index(self.short[0]))

    def test_mistyped_arguments_are_errors_with_the_nearest_name(self):
        self.assertIn("did you mean 'list'", self.refuse("lst"))
        self.assertIn("did you mean '--where'", self.refuse("--wher=lr=1"))
        self.assertIn("did you mean 'lr'", self.refuse("--where", "lrr=1"))
        self.assertIn("--columns: 'test_acuracy'", self.refuse("--columns=test_acuracy"))
        self.assertIn("did you mean 'json'", self.refuse("--format=jsn"))
        self.assertIn("no hash of a run begins with it", self.refuse("show", "xyz"))
        self.assertIn("runs does not create runs", self.refuse("why", "runs"))
        self.assertIn("--platform", self.refuse("--platform=slurm"))

    def test_no_slow_library_is_imported(self):
        code = "import sys, EC; print(EC.main(['runs']), [name for name in ('torch', 'numpy', 'scipy') if name in sys.modules])"
        checkout = os.path.dirname(os.path.abspath(EC.__file__))
        done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines()[-1], "0 []")

    def test_a_listing_without_runs_says_so(self):
        with mock.patch.dict(os.environ, EC_ROOT=os.path.join(self.root, "absent")):
            self.assertIn("There are no runs under", self.ask())
        self.assertIn("None of the 3 runs matches.", self.ask("--where=lr>5"))


class TestClearing(RunsTestCase):
    def setUp(self):
        super().setUp()
        self.desc = run_folders.training()
        self.folder = run_folders.train_run(self.root, self.desc)
        self.short = self.desc.hashname[6:12]

    def content(self) -> dict[str, bytes | None]:
        return {path: content for path, (content, _) in self.everything().items() if f"/{index.TRASH}" not in path}

    def batch(self) -> str:
        (name,) = os.listdir(os.path.join(self.root, index.TRASH))
        return name

    def test_without_yes_a_removal_is_only_listed(self):
        before = self.everything()
        out = self.ask("rm", self.short)
        self.assertIn(f"{self.desc.hashname}/seed_0\n", out)
        self.assertIn("Nothing has been moved", out)
        self.assertEqual(self.everything(), before)

    def test_removed_runs_are_in_the_trash_and_can_be_restored(self):
        before = self.content()
        self.ask("rm", self.short, "--yes")
        self.assertEqual(self.ask(), f"There are no runs under {self.root}.\n")
        moved = os.path.join(self.root, index.TRASH, self.batch(), os.path.relpath(self.folder, self.root))
        self.assertEqual(sorted(os.listdir(moved)), sorted(os.path.basename(path) for path in before if path.startswith(f"{self.folder}/")))
        self.ask("restore", self.batch())
        self.assertEqual(self.content(), before)
        self.assertFalse(os.path.exists(os.path.join(self.root, index.TRASH)))

    def test_an_extraction_is_removed_with_its_students_and_a_clustering_without_them(self):
        for gamma in (0.7, 0.8):
            folder = run_folders.extract_run(self.root, run_folders.extraction(self.desc.hashname, gamma))
        experiment, part = os.path.relpath(folder, self.root).split(os.sep)[0], os.path.basename(folder)
        self.ask("rm", f"{experiment}/{part}", "--yes")
        self.assertEqual([os.path.exists(path) for path in (folder, paths.logger(os.path.dirname(folder)))], [False, True])
        self.ask("rm", experiment, "--yes")
        self.assertFalse(os.path.exists(os.path.join(self.root, experiment)))

    def test_restoring_overwrites_nothing(self):
        self.ask("rm", self.short, "--yes")
        run_folders.train_run(self.root, self.desc, 0, 0.1)
        before, batch = self.content(), self.batch()
        self.assertIn("0 moved back\n", self.ask("restore", batch))
        self.assertEqual(self.content(), before)
        self.assertEqual(self.batch(), batch)

    def test_a_running_run_is_not_removed(self):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.addCleanup(child.communicate, b"\n")
        other = processes.this().to_json().replace(f'"pid": {os.getpid()}', f'"pid": {child.pid}')
        write(paths.lock(self.folder), other.replace(processes.this().started, processes._start_of(child.pid)))
        before = self.everything()
        self.assertIn(f"process {child.pid}", self.refuse("rm", self.short, "--yes", status=3))
        self.assertEqual(self.ask("gc", "--yes"), "There is nothing to move.\n")
        self.assertEqual(self.everything(), before)

    def test_a_run_that_starts_after_the_listing_is_not_removed(self):
        removals = trash.of_runs(index.scan(self.root), ())
        with mock.patch.object(lock_files, "acquire", side_effect=Busy("somebody has it")):
            _, left = trash.move(removals, self.root, "rm")
        self.assertEqual(left, [f"{self.desc.hashname}/seed_0 was not moved: somebody has it"])
        self.assertTrue(os.path.exists(paths.logger(self.folder)))

    def test_removing_a_teacher_prints_a_note_about_its_extractions(self):
        run_folders.extract_run(self.root, run_folders.extraction(self.desc.hashname))
        self.assertRegex(self.ask("rm", self.desc.hashname), r"^Note: train_\w+ is the teacher of extract \w+/\w+\.")

    def test_gc_moves_checkpoints_of_finished_runs_and_folders_without_results(self):
        old = write(os.path.join(self.root, f"train_{'f' * 32}", "seed_3", "main", "hparams_dict"), '{"cut')
        half = write(os.path.join(self.folder, ".logger.0123456789ab.new"), "half")
        for path in (old, half, *(os.path.join(self.root, f"train_{'f' * 32}", name) for name in ("seed_3/main", "seed_3", ""))):
            os.utime(path, (1, 1))
        kept = run_folders.record(self.desc.run_path(self.root, 1), self.desc, 1)
        write(paths.checkpoint(kept), "of an interrupted run")
        write(paths.progress(kept), '{"iteration": 12}')
        write(paths.progress(self.folder), '{"iteration": 480}')  # of a process that was killed just before it was done
        young = write(os.path.join(self.root, f"train_{'e' * 32}", "seed_3", "main", "hparams_dict"), '{"cut')
        valued = write(os.path.join(self.root, f"train_{'f' * 32}", "seed_4", "main", "hparams_dict"), '{"cut')
        write(os.path.join(os.path.dirname(valued), "model_ep2_it0.pth"), "weights")
        before = set(self.content())
        self.ask("gc", "--yes")
        gone = {os.path.relpath(path, self.root) for path in before - set(self.content())}
        run, lost = os.path.relpath(self.folder, self.root), f"train_{'f' * 32}/seed_3"
        expected = {f"{run}/checkpoint.pth", f"{run}/progress.json", f"{run}/{os.path.basename(half)}"}
        expected |= {lost, f"{lost}/main", f"{lost}/main/hparams_dict"}
        self.assertEqual(gone, expected)
        self.assertTrue(os.path.exists(young) and os.path.exists(valued))

    def test_checkpoints_may_be_kept(self):
        self.assertEqual(self.ask("gc", "--yes", "--no-checkpoints"), "There is nothing to move.\n")

    def test_a_batch_with_paths_outside_the_results_folder_is_ignored(self):
        for path in ("../elsewhere", "/etc/passwd", ""):
            write(os.path.join(self.root, index.TRASH, "forged", trash.LIST), json.dumps({"command": "", "moved": [path]}))
            self.assertEqual(trash.batches(self.root), {})

    def test_a_user_at_a_terminal_is_asked_for_confirmation(self):
        for answer, moved in (("\n", False), ("no\n", False), ("y\n", True)):
            with self.subTest(answer=answer), mock.patch.object(sys, "stdin", io.StringIO(answer)) as stdin:
                stdin.isatty = lambda: True
                self.assertIn("[y/N]", self.ask("rm", self.short))
                self.assertEqual(os.path.exists(self.folder), not moved)


class TestTable(TestCase):
    def test_sizes_and_seeds_are_short(self):
        sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 99_400: "99.4 kB", 123_456: "123 kB", 2_500_000: "2.5 MB", 3 * 10**12: "3.0 TB"}
        self.assertEqual({count: table.size(count) for count in sizes}, sizes)
        seeds = {(): "-", (3,): "3", (0, 1, 2, 5): "0-2,5", (-1, 0, 1): "-1,0-1", (2, 1, 1): "1-2"}
        self.assertEqual({numbers: table.seeds(numbers) for numbers in seeds}, seeds)

    def test_headings_break_at_underscores(self):
        self.assertEqual(table._broken("max_relative_error", 9), ["max_", "relative_", "error"])
        self.assertTrue(re.fullmatch(r"[a-z_]+", "".join(table._broken("weights_left", 1))))
