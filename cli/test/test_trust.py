"""Files from elsewhere are data: whatever one holds, nothing in it is executed, nothing is lost, and a line says which file it is."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import torch

from models import base
from testing import toy_teacher
from testing.test_case import TestCase

TRAIN = ("train", "--default_hparams=digits_lenet_4", "--training_steps=1ep", "--global_seed=1", "--quiet")
LOTTERY = ("lottery", *TRAIN[1:])
CODE = "__import__('builtins').open('{}', 'w')"


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


class TrustTest(TestCase):
    def setUp(self):
        super().setUp()
        self.sprung = os.path.join(self.root, "sprung")
        trap, old = {"model": Trap(self.sprung), "fc.weight": Trap(self.sprung)}, os.path.join(self.root, "old.pth")
        torch.save(trap, old, _use_new_zipfile_serialization=False)
        self.pickles = [base.to_bytes(trap), Path(old).read_bytes(), pickle.dumps(trap), pickle.dumps(trap, 2)]
        self.code = CODE.format(self.sprung)

    def done(self, *command: str) -> None:
        status, _, err = self.command(*command)
        self.assertEqual(status, 0, err)

    def only(self, pattern: str) -> Path:
        """The one file with such a path."""
        (path,) = Path(self.root).glob(pattern)
        return path

    def assert_refused(self, path: Path, contents: list[bytes | str], *command: str):
        """Puts contents in place of that of a file; the command names its folder in a line, and leaves every file as it is."""
        whole = path.read_bytes()
        for content in contents:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            before = {each: each.read_bytes() for each in Path(self.root).rglob("*") if each.is_file()}
            status, _, err = self.command(*command)
            self.assertEqual((status, err.count("\n")), (2, 1), err)
            self.assertIn(str(path.parent), err)
            self.assertTrue(err.rstrip("\n").isprintable(), err)
            self.assertEqual({each: each.read_bytes() for each in Path(self.root).rglob("*") if each.is_file()}, before)
            self.assertFalse(os.path.exists(self.sprung))
        path.write_bytes(whole)

    def test_train_executes_nothing_in_the_files_that_it_reads(self):
        self.done(*TRAIN)
        logger = self.only("train_*/seed_1/main/logger")
        lines = [self.code, f"test_loss$12${self.code}\n", "test_loss$12$[1.0]\n", f"test_loss$12${'9' * 400}\n", "test_loss$-1$1.0\n"]
        self.assert_refused(logger, lines, *TRAIN[:-1])
        logger.unlink()
        self.assert_refused(self.only("train_*/seed_1/main/checkpoint.pth"), self.pickles, *TRAIN)
        record = self.only("train_*/seed_1/main/hparams_dict")
        self.assert_refused(record, [self.code, '{"seed": -1}', '{"seed": "\\u001b[2J"}', "[" * 100_000], *TRAIN)
        self.done(*TRAIN)

    def test_lottery_executes_nothing_in_the_files_that_it_reads(self):
        self.done(*LOTTERY, "--levels=1")
        for pattern in ("level_1/main/mask.pth", "level_0/main/model_ep0_it0.pth", "level_1/main/model_ep1_it0.pth"):
            self.assert_refused(self.only(f"lottery_*/seed_1/{pattern}"), self.pickles, *LOTTERY, "--levels=2")
        counts = [self.code, "[]", "3", "NaN", '{"total": 4}']
        counts += [json.dumps({"total": 4, "unpruned": wrong}) for wrong in (None, "4", -1, 5, 2.5, True, 10**400, [4])]
        report = self.only("lottery_*/seed_1/level_1/main/sparsity_report.json")
        self.assert_refused(report, [*counts, '{"total": 0, "unpruned": 0}'], *LOTTERY, "--levels=1")
        logs = [self.code, "", "train_loss$0$1.0\n", "test_accuracy$0$[1.0, 0.5]\n"]
        self.assert_refused(self.only("lottery_*/seed_1/level_1/main/logger"), logs, *LOTTERY, "--levels=1")

    def test_extract_executes_nothing_in_the_files_that_it_reads(self):
        teacher, _ = toy_teacher.make("mlp_6_4_3", "tanh", seed=1)
        command = (
            "extract", "--default_hparams=students_mlp(3)_6_8_3", "--act_fun=tanh", f"--teacher_name={teacher}", "--teacher_seed=1",
            "--datagen=random:60", "--training_steps=2it", "--gamma=1", "--beta=10000", "--global_seed=1", "--quiet",
        )  # fmt: skip
        weights = self.only(f"{teacher}/seed_1/main/model_*.pth")
        state = torch.load(weights)
        diverged = base.to_bytes({name: value * float("nan") for name, value in state.items()})
        self.assert_refused(weights, [*self.pickles, diverged], *command)
        record = self.only(f"{teacher}/seed_1/main/hparams_dict")
        hparams = json.loads(record.read_text())
        names = ("cifar_resnet_60000002", "mlp_6_" + "9" * 5000 + "_3", "mlp_6_99999999999_3", "mlp_6_4_3\x1b[2J", self.code)
        wrong = [json.dumps(hparams | {"model_hparams": hparams["model_hparams"] | {"model_name": name}}) for name in names]
        wrong += [json.dumps(hparams | {"shape": shape}) for shape in (None, [6], [-6, 3], [6, 10**30], ["6", "3"])]
        self.assert_refused(record, [self.code, *wrong], *command)
        status, _, err = self.command(*command)
        self.assertEqual((status, "no cluster contains neurons" in err), (2, True), err)
        self.assert_refused(self.only("extract_*/seed_1/main/model_ep2_it0.pth"), self.pickles, *command)
