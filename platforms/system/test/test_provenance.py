"""The recorded provenance of runs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import unittest
from unittest import mock

import torch

from foundations import paths
from platforms.platform import get_platform
from platforms.system import provenance
from testing.test_case import TestCase


class TestProvenance(TestCase):
    def setUp(self):
        super().setUp()
        provenance._revision.cache_clear()
        self.addCleanup(provenance._revision.cache_clear)

    def recorded(self, *arguments: str, seed: int = 3) -> dict:
        """The recorded provenance after the start of a command."""
        with provenance.command_line(arguments):
            provenance.record(self.root, seed)
        with open(paths.provenance(self.root)) as file:
            return json.load(file)

    def test_a_start_records_command_versions_and_machine(self):
        content = self.recorded("train", "--model_name", "a b")
        self.assertEqual(shlex.split(content["command"]), ["python", "EC.py", "train", "--model_name", "a b"])
        self.assertEqual((content["seed"], content["platform"], content["host"]), (3, "test_case", socket.gethostname()))
        self.assertEqual(content["versions"]["torch"], torch.__version__.partition("+")[0])
        self.assertEqual(content["versions"]["python"], sys.version.split()[0])
        self.assertEqual((len(content["device"]), content["threads"], len(content["starts"])), (1, torch.get_num_threads(), 1))
        self.assertRegex(content["starts"][0]["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d$")

    def test_a_later_start_is_appended_with_the_facts_that_differ(self):
        first = self.recorded("train", "--quiet")
        with mock.patch.object(socket, "gethostname", return_value="elsewhere"):
            again = self.recorded("train")
        self.assertEqual({**again, "starts": again["starts"][:1]}, first)
        self.assertEqual({**again["starts"][1], "time": None}, {"time": None, "command": "python EC.py train", "host": "elsewhere"})
        self.assertGreaterEqual(again["starts"][1]["time"], again["starts"][0]["time"])

    def test_a_command_is_recorded_once(self):
        with provenance.command_line(["train"]):
            for _ in range(2):
                provenance.record(self.root, 3)
        self.assertEqual(len(provenance.read(self.root)["starts"]), 1)

    def test_a_damaged_file_is_replaced(self):
        for content in ("", "[]", '{"starts": 3}', '{"starts": [3]}', "[" * 100_000):
            get_platform().write(paths.provenance(self.root), content)
            self.assertEqual(self.recorded("train")["command"], "python EC.py train")

    @unittest.skipUnless(shutil.which("git"), "git is not installed")
    def test_the_revision_is_that_of_the_checkout_and_a_change_makes_it_dirty(self):
        def git(*arguments):
            name = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
            return subprocess.run(["git", "-C", self.root, *name, *arguments], capture_output=True, text=True, check=True).stdout

        with mock.patch.object(provenance, "CHECKOUT", self.root):
            self.assertEqual((self.recorded("train")["revision"], self.recorded("train")["dirty"]), (None, None))
            git("init", "--quiet")
            get_platform().write(os.path.join(self.root, "program.py"), "1")
            git("add", "program.py")
            git("commit", "--quiet", "--message=first")
            for content, dirty in (("1", False), ("2", True)):
                get_platform().write(os.path.join(self.root, "program.py"), content)
                provenance._revision.cache_clear()
                self.assertEqual(provenance._revision(), (git("rev-parse", "HEAD").strip(), dirty))

    def test_without_a_working_git_the_revision_is_unknown(self):
        for error in (subprocess.TimeoutExpired("git", 5), FileNotFoundError()):
            os.makedirs(os.path.join(self.root, ".git"), exist_ok=True)
            provenance._revision.cache_clear()
            with mock.patch.object(provenance, "CHECKOUT", self.root), mock.patch.object(subprocess, "run", side_effect=error):
                self.assertEqual(provenance._revision(), (None, None))
