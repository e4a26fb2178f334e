"""What happens to the names of runs when a teacher changes, and which seed a teacher has that is trained on the spot."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
from pathlib import Path

import torch

from datasets.teachers import run_folders
from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from platforms.platform import get_platform
from testing import toy_teacher
from testing.test_case import TestCase
from training import job, run_records, teachers
from training.desc import TrainingDesc
from training.job import JobArgs

MODEL, TRAINING = ModelHparams("mlp_3_5_2", "kaiming_normal", "uniform"), TrainingHparams("sgd", 0.1, "2ep")


def shifted(model: torch.nn.Module) -> None:
    """Changes the last bit or so of one bias."""
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6


def started(location: str, *times: str) -> None:
    """Writes the provenance of a run that was started at some times."""
    get_platform().write(paths.provenance(location), json.dumps({"starts": [{"time": f"2025-01-01T{time}:00+00:00"} for time in times]}))


class TeachersTestCase(TestCase):
    def setUp(self):
        super().setUp()
        self.name, _ = toy_teacher.make("mlp_3_4_2", "tanh", seed=1)
        self.teacher = run_folders.location_of(self.name, 1)

    def desc(self, **changes: object) -> TrainingDesc:
        """A student of the teacher, as checked but without the teacher's weights."""
        return TrainingDesc(DatasetHparams("teacher", 10, self.name, 1, "random:40", **changes), MODEL, TRAINING)

    def run_student(self, seed: int = 3) -> TrainingDesc:
        """Writes the record of a student; returns its descriptor."""
        desc = teachers.settle(self.desc(), seed)
        run_records.record(desc, desc.run_path(self.root, seed), seed, (3, 2))
        return desc

    def change_teacher(self, change=shifted) -> None:
        toy_teacher.make("mlp_3_4_2", "tanh", seed=1, change=change)

    def add_replicate(self) -> None:
        """Moves the run of the teacher to the folder that OpenLTH would use."""
        shutil.move(os.path.dirname(self.teacher), os.path.join(self.root, self.name, "replicate_1"))

    def forget_digests(self) -> None:
        """Makes all records as they were before digests were recorded."""
        for path in Path(self.root).rglob("hparams_dict"):
            record = json.loads(path.read_text())
            record.pop(teachers.DIGESTS, None)
            for bundle in record.values():
                if isinstance(bundle, dict):
                    bundle.pop("teacher_digest", None), bundle.pop("teacher_folder", None)
            path.write_text(json.dumps(record))


class ChangedTeacherTest(TeachersTestCase):
    def test_the_first_teacher_of_a_name_leaves_the_name_as_it_is(self):
        for seed in (3, 4, 3):
            self.assertEqual(self.run_student(seed), self.desc())

    def test_the_record_has_the_digest_of_the_weights(self):
        location = self.run_student().run_path(self.root, 3)
        record = json.loads(Path(paths.hparams_dict(location)).read_text())
        self.assertEqual(record["teacher_digests"], {"dataset_hparams": run_folders.read(self.name, 1).digest})

    def test_a_teacher_that_has_changed_gives_every_seed_a_name_with_its_digest(self):
        before = self.run_student()
        self.change_teacher()
        digest = run_folders.read(self.name, 1).digest
        for seed in (3, 4):
            after = self.run_student(seed)
            self.assertEqual(after.dataset_hparams.teacher_digest, digest)
            self.assertNotEqual(after.hashname, before.hashname)

    def test_every_teacher_has_its_own_name_and_the_first_gets_its_old_name_back(self):
        names = [self.run_student().hashname]
        for lower in (1.0, 2.0):
            self.change_teacher(lambda model, lower=lower: torch.nn.init.constant_(model.fc.bias, lower))
            names += [self.run_student().hashname, self.run_student().hashname]
        self.change_teacher(lambda model: None)
        self.assertEqual(self.run_student().hashname, names[0])
        self.assertEqual((names[1], names[3], len(set(names))), (names[2], names[4], 3))

    def test_another_file_with_the_same_weights_is_the_same_teacher(self):
        self.run_student()
        path = os.path.join(self.teacher, "model_ep1_it0.pth")
        state = torch.load(path)
        torch.save({name: value.double() for name, value in reversed(state.items())}, path)
        self.assertEqual(self.run_student(), self.desc())

    def test_the_name_does_not_depend_on_a_teacher_that_is_gone(self):
        desc = self.run_student()
        shutil.rmtree(os.path.join(self.root, self.name))
        self.assertEqual(teachers.settle(self.desc(), 3), desc)

    def test_a_run_is_found_after_the_first_run_of_its_name_is_removed(self):
        first = self.run_student()
        self.change_teacher()
        second = self.run_student()
        shutil.rmtree(os.path.join(self.root, first.hashname))
        self.assertEqual([self.run_student(seed) for seed in (3, 4)], [second, second])

    def test_a_run_is_found_if_its_teacher_is_damaged_and_a_new_run_is_refused(self):
        self.run_student()
        os.truncate(os.path.join(self.teacher, "model_ep1_it0.pth"), 100)
        self.assertEqual(teachers.settle(self.desc(), 3), self.desc())
        with self.assertRaisesRegex(ConfigError, "model_ep1_it0.pth"):
            teachers.settle(self.desc(), 4)

    def test_a_teacher_that_changes_after_the_check_is_refused(self):
        desc = self.run_student()
        self.change_teacher()
        for seed in (3, 4):
            with self.assertRaisesRegex(ConfigError, f"the weights of {self.name} are not those that {desc.hashname} was run with"):
                run_records.record(desc, desc.run_path(self.root, seed), seed, (3, 2))

    def test_a_line_says_that_the_teacher_has_changed(self):
        before = self.run_student()
        self.change_teacher()
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            teachers.print_remark(before)
            teachers.print_remark(self.run_student())
        self.assertRegex(out.getvalue(), f"^Note: the weights of {self.name} have changed since {before.hashname} was run; [^\n]*\n$")

    def test_a_damaged_record_does_not_prevent_the_check(self):
        path = paths.hparams_dict(self.run_student().run_path(self.root, 3))
        for content in ("", "[]", "[" * 100_000, '{"teacher_digests": [], "dataset_hparams": 3}'):
            get_platform().write(path, content)
            self.assertEqual(teachers.settle(self.desc(), 3), self.desc())

    def test_a_file_of_answers_is_named_by_its_content_already(self):
        desc = self.desc()
        desc.dataset_hparams.teacher_name = "answers_0"
        self.assertEqual(teachers.settle(desc, 3), desc)
        self.assertEqual(teachers.digests(desc), {})

    def test_a_digest_on_the_command_line_is_checked(self):
        digest = run_folders.read(self.name, 1).digest
        self.assertEqual(teachers.settle(self.desc(teacher_digest=digest[:8]), 3), self.desc())
        with self.assertRaisesRegex(ConfigError, f"--teacher_digest: 123x is not the digest of {self.name}; valid: {digest}"):
            teachers.settle(self.desc(teacher_digest="123x"), 3)


class ReplicateTest(TeachersTestCase):
    """The run of the teacher has a folder of OpenLTH, and then also one of this framework."""

    def setUp(self):
        super().setUp()
        self.add_replicate()

    def test_a_finished_run_keeps_its_teacher_when_the_same_seed_is_trained_here(self):
        before = self.run_student()
        self.assertEqual(before.dataset_hparams.teacher_folder, "replicate_1")
        self.change_teacher()
        self.assertEqual([self.run_student(seed) for seed in (3, 4)], [before, before])

    def test_a_new_experiment_prefers_the_run_of_this_framework(self):
        self.change_teacher()
        self.assertEqual(self.run_student(), self.desc())

    def test_the_digest_or_the_folder_chooses_between_the_two(self):
        self.change_teacher()
        for folder in ("replicate_1", "seed_1"):
            digest = run_folders.read(self.name, 1, folder).digest
            for chosen in ({"teacher_digest": digest}, {"teacher_folder": folder}):
                settled = teachers.settle(self.desc(**chosen), 3).dataset_hparams
                self.assertEqual(settled.teacher_folder or "seed_1", folder)

    def test_a_folder_of_another_seed_is_refused(self):
        toy_teacher.make("mlp_3_4_2", "tanh", seed=2)
        for folder in ("seed_1", "seed_2", "../x", "main"):
            with self.assertRaisesRegex(ConfigError, f"--teacher_folder: seed 1 of {self.name} has no folder .*; valid: replicate_1"):
                run_folders.find(self.name, 1, folder)

    def test_an_older_run_keeps_the_teacher_that_existed_when_it_was_started(self):
        before = self.run_student()
        started(before.run_path(self.root, 3), "12:00")
        self.forget_digests()
        self.change_teacher()
        started(self.teacher, "13:00")
        self.assertEqual(teachers.settle(self.desc(), 3), before)


class OlderRecordTest(TeachersTestCase):
    def test_a_run_without_digests_is_found_if_nothing_says_that_its_teacher_has_changed(self):
        location = self.run_student().run_path(self.root, 3)
        self.forget_digests()
        self.assertEqual(teachers.settle(self.desc(), 3), self.desc())
        started(self.teacher, "10:00", "11:00")
        started(location, "12:00", "14:00")
        self.assertEqual(teachers.settle(self.desc(), 3), self.desc())
        run_records.record(self.desc(), location, 3, (3, 2))

    def test_a_teacher_that_was_trained_further_since_is_another(self):
        location = self.run_student().run_path(self.root, 3)
        self.forget_digests()
        started(self.teacher, "10:00", "13:00")
        started(location, "12:00")
        self.assertIsNotNone(teachers.settle(self.desc(), 3).dataset_hparams.teacher_digest)


class TrainedOnTheSpotTest(TestCase):
    def teacher(self, teacher_seed: int = -1, **arguments: int) -> tuple[str, str | None]:
        """The folder of the seed of the teacher of students, and the record of it in their hyperparameters."""
        hparams = DatasetHparams("teacher", 10, "digits_lenet_4", teacher_seed, "digits")
        dataset = job.check_teacher(hparams, MODEL, JobArgs(**arguments))
        self.assertEqual(dataset.dataset_hparams.teacher_seed, teacher_seed)
        return os.path.basename(os.path.dirname(dataset.teacher.location)), dataset.dataset_hparams.teacher_folder

    def train(self, seed: int) -> str:
        """Writes a finished run of the teacher, and returns its name."""
        return toy_teacher.make("digits_lenet_4", seed=seed)[0]

    def test_its_seed_is_derived_from_the_chosen_seed_of_the_students(self):
        folders = [self.teacher(global_seed=seed) for seed in (3, 3, 4)]
        self.assertEqual(folders[0], folders[1])
        self.assertNotEqual(folders[0], folders[2])
        self.assertRegex(folders[0][0], r"^seed_\d+$")
        self.assertEqual(*folders[0])

    def test_no_order_of_commands_changes_it(self):
        folder, _ = self.teacher(global_seed=3)
        self.train(int(folder.removeprefix("seed_")))
        self.train(-1)
        self.assertEqual(self.teacher(global_seed=3)[0], folder)

    def test_a_seed_is_drawn_only_if_none_is_chosen(self):
        self.assertEqual(self.teacher(), ("seed_-1", None))
        self.assertEqual(self.teacher(7, global_seed=3), ("seed_7", None))

    def test_its_hash_means_the_same_folder_as_the_name_of_its_model(self):
        folder, _ = self.teacher(global_seed=3)
        name = self.train(int(folder.removeprefix("seed_")))
        dataset = job.check_teacher(DatasetHparams("teacher", 10, name, -1, "digits"), MODEL, JobArgs(global_seed=3))
        self.assertEqual(dataset.dataset_hparams.teacher_folder, folder)
        with self.assertRaisesRegex(ConfigError, "--teacher_seed: .* has no seed -1; valid: "):
            job.check_teacher(DatasetHparams("teacher", 10, name, -1, "digits"), MODEL, JobArgs(global_seed=4))

    def test_a_default_run_without_a_seed_is_used_if_it_is_finished(self):
        name = self.train(-1)
        self.assertEqual(self.teacher(global_seed=3), ("seed_-1", None))
        os.remove(paths.logger(run_folders.location_of(name, -1)))
        self.assertNotEqual(self.teacher(global_seed=3), ("seed_-1", None))

    def test_a_finished_replicate_is_used_and_an_unfinished_one_is_not(self):
        name = self.train(7)
        folder = os.path.join(self.root, name, "replicate_7")
        shutil.move(os.path.join(self.root, name, "seed_7"), folder)
        self.assertEqual(self.teacher(7), ("replicate_7", None))
        os.remove(paths.logger(os.path.join(folder, "main")))
        self.assertEqual(self.teacher(7), ("seed_7", "seed_7"))

    def test_seeds_with_teachers_of_their_own_share_the_name_of_the_experiment(self):
        names = set()
        for seed in (3, 4):
            hparams = DatasetHparams("teacher", 10, "digits_lenet_4", -1, "digits")
            dataset = job.check_teacher(hparams, MODEL, JobArgs(global_seed=seed))
            self.train(int(str(dataset.dataset_hparams.teacher_folder).removeprefix("seed_")))
            desc = TrainingDesc(dataset.dataset_hparams, dataclasses.replace(MODEL, model_name="mlp_64_5_10"), TRAINING)
            desc = teachers.settle(desc, seed)
            run_records.record(desc, desc.run_path(self.root, seed), seed, (64, 10))
            names.add(desc.hashname)
        self.assertEqual(len(names), 1)
