"""Locks of run folders, which real processes hold, wait for and take over."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from unittest import mock

from foundations import paths
from foundations.errors import Busy, ConfigError
from platforms.base import installed
from platforms.platform import get_platform
from platforms.system import lock_files, locks, processes
from platforms.system.processes import Process
from testing.test_case import CpuPlatform, TestCase

PROCESSES = 8


def started(task: Callable[[], None]) -> multiprocessing.Process:
    """A fork of this process that runs a task."""
    made = multiprocessing.get_context("fork").Process(target=quietly, args=(task,))
    made.start()
    return made


def quietly(task: Callable[[], None]) -> str:
    """Runs a task, and returns what it prints to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as err:
        task()
    return err.getvalue()


class LockTestCase(TestCase):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.root, "run")
        self.path = paths.lock(self.folder)
        patch = mock.patch.object(lock_files, "LONGEST_PAUSE", 0.1)
        patch.start()
        self.addCleanup(patch.stop)

    def leave_lock(self, path: str | None = None, **changes) -> Process:
        """Writes the lock of a process that equals this one except for some changes."""
        holder = dataclasses.replace(processes.this(), **changes)
        get_platform().write(path or self.path, holder.to_json())
        return holder

    def enter(self):
        with locks.held(self.folder):
            pass

    def hold_for_ever(self):
        with locks.held(self.folder):
            time.sleep(60)

    def holder(self) -> multiprocessing.Process:
        """A process that holds the lock."""
        made = started(self.hold_for_ever)
        self.addCleanup(made.kill)
        while not os.path.exists(self.path):
            time.sleep(0.01)
        return made


class HoldingTest(LockTestCase):
    def test_a_lock_names_its_holder_and_is_removed_at_release(self):
        with locks.held(self.folder), open(self.path) as file:
            self.assertEqual(Process.from_json(file.read()), processes.this())
        self.assertEqual(self.files(), [])

    def test_a_lock_is_removed_when_the_run_fails(self):
        for failure in (ConfigError, KeyboardInterrupt):
            with self.assertRaises(failure), locks.held(self.folder):
                raise failure
            self.assertEqual(self.files(), [])

    def test_folders_that_a_lock_makes_are_removed_if_they_remain_empty(self):
        self.folder = os.path.join(self.root, "experiment", "seed_0", "main")
        existing = os.path.join(self.root, "existing")
        os.makedirs(existing)
        for folder in (self.folder, existing):
            with self.assertRaises(ConfigError), locks.held(folder):
                raise ConfigError
        self.assertEqual(os.listdir(self.root), ["existing"])
        with self.assertRaises(ConfigError), locks.held(self.folder):
            get_platform().write(os.path.join(self.root, "experiment", "file"), "content")
            raise ConfigError
        self.assertEqual(self.files(), ["experiment/file"])
        self.assertFalse(os.path.exists(os.path.dirname(self.folder)))

    def test_a_process_that_waits_makes_the_folder_again_if_the_holder_has_removed_it(self):
        take, removed = lock_files._take, []

        def take_after_removal(path, watch):
            if not removed:
                removed.append(os.rmdir(self.folder))
            return take(path, watch)

        with mock.patch.object(lock_files, "_take", take_after_removal), locks.held(self.folder):
            self.assertEqual(self.files(), ["run/.lock"])

    def test_locks_may_be_nested(self):
        with locks.held(self.folder):
            with locks.held(self.folder):
                pass
            self.assertTrue(os.path.exists(self.path))
        self.assertEqual(self.files(), [])

    def test_only_one_process_at_a_time_holds_a_lock(self):
        counter = os.path.join(self.root, "counter")
        get_platform().write(counter, "0")

        def count():
            for _ in range(3):
                with locks.held(self.folder):
                    with open(counter) as file:
                        number = int(file.read())
                    time.sleep(0.005)
                    with open(counter, "w") as file:
                        file.write(str(number + 1))

        for process in [started(count) for _ in range(PROCESSES)]:
            process.join()
            self.assertEqual(process.exitcode, 0)
        with open(counter) as file:
            self.assertEqual(file.read(), str(3 * PROCESSES))
        self.assertEqual(self.files(), ["counter"])

    def test_locks_work_without_hard_links(self):
        with mock.patch("os.link", side_effect=OSError(errno.EPERM, "Operation not permitted")):
            self.test_only_one_process_at_a_time_holds_a_lock()
            self.leave_lock(started="long ago")
            self.enter()
        self.assertEqual(self.files(), ["counter"])

    def test_the_error_for_a_lock_that_cannot_be_written_gives_the_reason(self):
        for number in (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT):
            with mock.patch("os.link", side_effect=OSError(number, os.strerror(number))), self.assertRaises(ConfigError) as caught:
                self.enter()
            self.assertRegex(str(caught.exception), rf"^{self.path} cannot be written \({os.strerror(number)}\)")
            self.assertEqual(self.files(), [])

    def test_only_the_primary_process_of_a_job_locks(self):
        class Second(CpuPlatform):
            rank = 1
            on_primary = mock.Mock(return_value=True)  # the result of the primary process

        with installed(Second()), locks.held(self.folder):
            self.assertEqual(self.files(), [])
        Second.on_primary.assert_called_once()


class WaitingTest(LockTestCase):
    def test_a_waiting_process_names_the_holder_once(self):
        holder = self.holder()
        threading.Timer(0.5, holder.kill).start()
        (line,) = quietly(self.enter).splitlines()
        self.assertRegex(line, rf"^Waiting for process {holder.pid} on .*, which has locked {self.folder}$")

    def test_the_error_without_waiting_names_the_holder(self):
        holder = self.holder()
        before = self.files()
        with installed(CpuPlatform(wait=False)), self.assertRaisesRegex(Busy, rf"{self.folder} .* process {holder.pid} on "):
            self.enter()
        self.assertEqual(self.files(), before)

    def test_an_interruption_while_waiting_does_not_change_the_lock(self):
        self.holder()
        before = self.files()
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
        with self.assertRaises(KeyboardInterrupt):
            quietly(self.enter)
        self.assertEqual(self.files(), before)


class TakeoverTest(LockTestCase):
    def test_the_lock_of_a_killed_process_is_taken_over_at_once_even_if_it_is_a_zombie(self):
        os.kill(self.holder().pid, signal.SIGKILL)
        quietly(self.enter)
        self.assertEqual(self.files(), [])

    def test_a_later_process_with_the_id_of_a_dead_holder_is_not_the_holder(self):
        self.leave_lock(started="long ago")
        self.enter()
        self.assertEqual(self.files(), [])

    def test_only_one_of_many_processes_takes_over_the_lock_of_a_dead_holder(self):
        alone = os.path.join(self.root, "alone")

        def enter_alone():
            with locks.held(self.folder):
                os.close(os.open(alone, os.O_CREAT | os.O_EXCL))
                time.sleep(0.002)
                os.unlink(alone)

        for number in range(10):
            self.leave_lock(started=f"long ago {number}")
            for process in [started(enter_alone) for _ in range(PROCESSES)]:
                process.join()
                self.assertEqual(process.exitcode, 0)
            self.assertEqual(self.files(), [])

    def test_a_process_that_checked_before_another_took_over_does_not_take_over_as_well(self):
        """A slow process finds the holder dead. Before it makes its claim, a fast process takes over the lock."""
        dead = self.leave_lock(started="long ago")
        find, fast = lock_files.Watch.holder_is_dead, []

        def find_and_be_late(watch, path, holder):
            is_dead = find(watch, path, holder)
            if not fast:
                with mock.patch.object(lock_files.Watch, "holder_is_dead", find):
                    fast.append(started(self.hold_for_ever))
                self.addCleanup(fast[0].kill)
                while lock_files._holder(self.path) == dead:
                    time.sleep(0.01)
            return is_dead

        with (
            mock.patch.object(lock_files.Watch, "holder_is_dead", find_and_be_late),
            installed(CpuPlatform(wait=False)),
            self.assertRaises(Busy) as caught,
        ):
            self.enter()
        self.assertIn(f"process {fast[0].pid} on", str(caught.exception))

    def test_the_claim_of_a_dead_process_is_taken_over(self):
        dead = self.leave_lock(started="long ago")
        self.leave_lock(f"{self.path}.{dead.token}", started="not so long ago")
        self.enter()
        self.assertEqual(self.files(), [])

    def test_leftover_claims_and_temporary_locks_are_removed(self):
        self.leave_lock(f"{self.path}.0123456789ab", started="long ago")
        self.leave_lock(f"{self.path}.0123456789ab.new", started="long ago")
        self.enter()
        self.assertEqual(self.files(), [])

    def test_remove_dead_removes_the_lock_of_a_dead_holder_only(self):
        locks.remove_dead(self.folder)
        self.leave_lock(pid=os.getppid(), started=processes._start_of(os.getppid()))
        locks.remove_dead(self.folder)
        self.assertEqual(len(self.files()), 1)
        self.leave_lock(started="long ago")
        with mock.patch("os.link", side_effect=PermissionError):
            locks.remove_dead(self.folder)
        locks.remove_dead(self.folder)
        self.assertEqual(self.files(), [])

    def test_only_the_temporary_files_of_the_killed_holder_are_removed(self):
        def die_writing():
            with locks.held(self.folder), mock.patch("os.fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL)):
                get_platform().write(os.path.join(self.folder, "below", "model.pth"), "weights")

        get_platform().write(os.path.join(self.folder, ".model.pth.0123456789ab.new"), "of a living process")
        started(die_writing).join()
        self.assertEqual(len(self.files()), 3)
        self.enter()
        self.assertEqual(self.files(), ["run/.model.pth.0123456789ab.new"])

    def test_a_restarted_slurm_job_takes_over_its_own_lock_on_another_machine(self):
        with mock.patch.object(processes, "this", return_value=dataclasses.replace(processes.this(), job="7", restarts=1)):
            self.leave_lock(machine="another", job="7", restarts=0)
            self.enter()
            for other in ({"job": "8"}, {"job": "7", "restarts": 1}):
                self.leave_lock(**{"machine": "another", "restarts": 0} | other)
                with installed(CpuPlatform(wait=False)), self.assertRaises(Busy):
                    self.enter()


class OtherMachineTest(LockTestCase):
    def setUp(self):
        super().setUp()
        patch = mock.patch.multiple(lock_files, STALE=0.4, HEARTBEAT=0.1)
        patch.start()
        self.addCleanup(patch.stop)

    def entered_after(self) -> float:
        begun = time.monotonic()
        quietly(self.enter)
        return time.monotonic() - begun

    def test_a_lock_that_is_not_touched_is_taken_over_after_a_while(self):
        self.leave_lock(machine="another")
        self.assertGreaterEqual(self.entered_after(), 0.4)

    def test_the_clock_of_the_holder_does_not_matter(self):
        for clock in (1, 2**32):
            self.leave_lock(machine="another")
            os.utime(self.path, (clock, clock))
            self.assertGreaterEqual(self.entered_after(), 0.4)

    def test_a_lock_that_is_touched_is_not_taken_over(self):
        self.leave_lock(machine="another")
        over = threading.Event()
        threading.Timer(1.0, over.set).start()
        threading.Thread(target=self.touch_until, args=(over,)).start()
        self.assertGreaterEqual(self.entered_after(), 1.0)

    def touch_until(self, over: threading.Event):
        while not over.wait(0.1):
            os.utime(self.path)

    def test_a_lock_with_invalid_content_is_treated_as_that_of_another_machine(self):
        for content in (
            "",
            "{",
            "[]",
            "null",
            '{"pid": 1}',
            "[" * 10000,
            '{"host": 1}',
            processes.this().to_json().replace("pid", "../pid"),
        ):
            get_platform().write(self.path, content)
            with installed(CpuPlatform(wait=False)), self.assertRaisesRegex(Busy, "by an unknown process"):
                self.enter()
        self.assertGreaterEqual(self.entered_after(), 0.4)

    def test_a_holder_touches_its_lock_regularly(self):
        with locks.held(self.folder):
            os.utime(self.path, (1, 1))
            time.sleep(0.3)
            self.assertGreater(os.stat(self.path).st_mtime, 1)

    def test_a_holder_that_was_suspended_for_too_long_stops_writing(self):
        path = os.path.join(self.folder, "model.pth")
        with locks.held(self.folder):
            get_platform().write(path, "mine")
            successor = self.successor()
            time.sleep(0.4)
            with self.assertRaisesRegex(Busy, rf"^{self.path} was taken over by process {successor.pid} on another"):
                get_platform().write(path, "mine, too late")
        with open(path) as file:
            self.assertEqual(file.read(), "mine")
        self.assertEqual(lock_files._holder(self.path), successor)
        get_platform().write(path, "other work")

    def successor(self) -> Process:
        """A process of another machine that has taken over the lock."""
        successor = dataclasses.replace(processes.this(), host="another", machine="another")
        with open(self.path, "w") as file:
            file.write(successor.to_json())
        return successor
