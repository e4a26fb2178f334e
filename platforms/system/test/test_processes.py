"""Identities of processes."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import time
from unittest import mock

from platforms.system import processes
from platforms.system.processes import Process
from testing.test_case import TestCase


class ProcessTest(TestCase):
    def other(self, **changes) -> Process:
        return dataclasses.replace(processes.this(), **changes)

    def test_an_identity_can_be_read_back(self):
        self.assertEqual(Process.from_json(processes.this().to_json()), processes.this())

    def test_this_process_is_alive_and_has_its_own_id(self):
        here = processes.this()
        self.assertEqual((here.pid, here.is_alive), (os.getpid(), True))
        self.assertEqual(here.started, processes._start_of(os.getpid()))

    def test_the_start_time_agrees_with_ps(self):
        seconds = int(processes.this().started) / os.sysconf("SC_CLK_TCK")
        with open("/proc/uptime") as file:
            age = float(file.read().split()[0]) - seconds
        shown = subprocess.run(["ps", "-o", "etimes=", "-p", str(os.getpid())], capture_output=True, text=True).stdout
        self.assertAlmostEqual(age, float(shown), delta=2.5)

    def test_a_forked_process_has_another_identity(self):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            child = pool.apply(processes.this)
        self.assertNotEqual((child.pid, child.token), (processes.this().pid, processes.this().token))

    def test_dead_processes_and_zombies_are_not_alive(self):
        child = multiprocessing.get_context("fork").Process(target=lambda: None)
        child.start()
        named = self.other(pid=child.pid, started=processes._start_of(child.pid) or "")
        while processes._start_of(child.pid) is not None:  # it ends, and is a zombie until it is joined
            time.sleep(0.01)
        self.assertIs(named.is_alive, False)
        child.join()
        self.assertIs(named.is_alive, False)

    def test_a_later_process_with_the_same_id_is_not_the_same(self):
        self.assertIs(self.other(started="1").is_alive, False)

    def test_it_is_unknown_whether_a_process_of_another_machine_is_alive(self):
        self.assertIsNone(self.other(machine="another").is_alive)

    def test_a_hidden_process_of_another_user_counts_as_alive(self):
        with (
            mock.patch.object(processes, "open", side_effect=FileNotFoundError, create=True),
            mock.patch("os.kill", side_effect=PermissionError),
        ):
            self.assertIs(self.other().is_alive, True)

    def test_without_proc_the_start_time_comes_from_ps(self):
        with mock.patch.object(processes, "open", side_effect=FileNotFoundError, create=True):
            shown = processes._start_of(os.getpid())
            self.assertRegex(shown, r":\d\d:\d\d")
            self.assertIs(self.other(started=shown).is_alive, True)
            self.assertIs(self.other(started="yesterday").is_alive, False)

    def test_invalid_process_ids_give_an_unknown_process(self):
        for pid in (0, -1, 2**31, 10**400, 1.5, "1", None):
            content = json.dumps(json.loads(processes.this().to_json()) | {"pid": pid})
            self.assertEqual(Process.from_json(content).machine, "")

    def test_control_characters_are_neither_read_nor_written(self):
        for name in ("host", "command"):
            self.assertEqual(Process.from_json(self.other(**{name: "a\x1b[2J\nb"}).to_json()).pid, 0)
        with mock.patch("sys.argv", ["EC.py", "a\nb\x07", "\udcff"]):
            processes._identity.cache_clear()
            self.addCleanup(processes._identity.cache_clear)
            self.assertEqual(processes.this().command, "EC.py 'a b ' ' '")
            self.assertEqual(Process.from_json(processes.this().to_json()), processes.this())

    def test_a_token_is_valid_in_a_file_name(self):
        for one in (processes.this(), Process.from_json("../../etc"), Process.from_json("")):
            self.assertRegex(one.token, "^[0-9a-f]{12}$")
