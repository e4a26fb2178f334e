"""The global platform, and its operations on files."""

import errno
import os
import stat
from unittest import mock

from foundations.errors import ConfigError
from platforms import base, registry
from platforms.local import Platform
from platforms.platform import get_platform
from platforms.system import processes
from testing.test_case import TestCase


class TestInstallation(TestCase):
    def test_within_a_job_its_platform_is_installed(self):
        seen, mine = [], Platform(num_workers=3)
        mine.run_job(lambda: seen.append(get_platform()))
        self.assertIs(seen[0], mine)

    def test_the_previous_platform_is_restored_after_a_job(self):
        before = get_platform()
        Platform().run_job(lambda: None)
        self.assertIs(get_platform(), before)

    def test_the_previous_platform_is_restored_after_a_job_that_fails(self):
        before = get_platform()
        for failure in (ValueError, ConfigError, KeyboardInterrupt):
            with self.subTest(failure=failure.__name__):
                with self.assertRaises(failure):
                    Platform().run_job(mock.Mock(side_effect=failure))
                self.assertIs(get_platform(), before)

    def test_nested_jobs_have_their_own_platforms(self):
        outer, inner, seen = Platform(num_workers=1), Platform(num_workers=2), []

        def job():
            inner.run_job(lambda: seen.append(get_platform()))
            seen.append(get_platform())

        outer.run_job(job)
        self.assertEqual([id(platform) for platform in seen], [id(inner), id(outer)])

    def test_without_an_installed_platform_the_local_one_is_used(self):
        with mock.patch.object(base, "_PLATFORM", None):
            self.assertIsInstance(get_platform(), Platform)

    def test_a_single_process_is_the_primary_process(self):
        self.assertEqual((Platform().rank, Platform().world_size, Platform().is_primary_process), (0, 1, True))

    def test_a_negative_number_of_workers_is_an_error(self):
        with self.assertRaisesRegex(ConfigError, "^--num_workers: -1 .*valid: 0 to 1,000"):
            Platform(num_workers=-1)

    def test_the_error_for_an_unknown_platform_lists_the_known_ones(self):
        with self.assertRaisesRegex(ConfigError, "^--platform: 'locla' .*'local'.*valid: .*local"):
            registry.get("locla")


class TestFiles(TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.root, "run", "main", "logger")

    def content(self) -> str:
        with get_platform().open(self.path) as file:
            return file.read()

    def test_written_content_is_read_back(self):
        get_platform().write(self.path, "größer\n")
        self.assertEqual(self.content(), "größer\n")
        with get_platform().open(self.path, "rb") as file:
            self.assertEqual(file.read(), "größer\n".encode())

    def test_bytes_are_written_unchanged(self):
        get_platform().write(self.path, b"\xff\r\n\x00")
        with get_platform().open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"\xff\r\n\x00")

    def test_write_makes_folders_and_leaves_one_file(self):
        get_platform().write(self.path, "old")
        get_platform().write(self.path, "new")
        self.assertEqual((self.files(), self.content()), ([os.path.join("run", "main", "logger")], "new"))

    def test_a_write_that_fails_at_any_point_leaves_the_old_content(self):
        get_platform().write(self.path, "old")
        for call in ("os.fsync", "os.replace"):
            with self.subTest(call=call):
                with mock.patch(call, side_effect=OSError("disk full")), self.assertRaisesRegex(ConfigError, "disk full"):
                    get_platform().write(self.path, "new")
                self.assertEqual(self.content(), "old")

    def test_a_first_write_that_fails_leaves_no_file(self):
        for call in ("os.fsync", "os.replace"):
            with self.subTest(call=call):
                with mock.patch(call, side_effect=OSError("disk full")), self.assertRaisesRegex(ConfigError, "disk full"):
                    get_platform().write(self.path, "new")
                self.assertFalse(get_platform().exists(self.path))

    def test_a_write_after_a_failed_one_succeeds(self):
        with mock.patch("os.replace", side_effect=OSError("disk full")), self.assertRaisesRegex(ConfigError, "disk full"):
            get_platform().write(self.path, "a longer content that failed")
        get_platform().write(self.path, "new")
        self.assertEqual((self.files(), self.content()), ([os.path.join("run", "main", "logger")], "new"))

    def test_content_is_synced_before_the_rename_and_the_folder_after_it(self):
        calls, fsync, replace = [], os.fsync, os.replace

        def record_fsync(descriptor):
            calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def record_replace(source, target):
            calls.append("name")
            replace(source, target)

        with mock.patch("os.fsync", record_fsync), mock.patch("os.replace", record_replace):
            get_platform().write(self.path, "new")
        self.assertEqual(calls, ["file", "name", "folder"])

    def test_a_write_that_fails_or_is_interrupted_leaves_no_temporary_file(self):
        get_platform().write(self.path, "old")
        before = self.files()
        for failure in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):
            for call in ("os.fsync", "os.replace"):
                with mock.patch(call, side_effect=failure), self.assertRaises((ConfigError, KeyboardInterrupt)):
                    get_platform().write(self.path, "new")
                self.assertEqual((self.files(), self.content()), (before, "old"))

    def test_files_are_written_even_if_folders_cannot_be_synced(self):
        fsync = os.fsync

        def refuse_folders(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "Invalid argument")
            fsync(descriptor)

        with mock.patch("os.fsync", refuse_folders):
            get_platform().write(self.path, "new")
        self.assertEqual(self.content(), "new")

    def test_keep_moves_the_old_content_to_another_name(self):
        kept = os.path.join(os.path.dirname(self.path), "previous")
        for number in range(3):
            get_platform().write(self.path, f"content {number}", keep=kept)
        with open(kept) as file:
            self.assertEqual((file.read(), self.content()), ("content 1", "content 2"))
        self.assertEqual(len(self.files()), 2)

    def test_concurrent_writers_use_different_temporary_files(self):
        """A second process writes the same file during the write of the first. Both writes are intact."""
        replace = os.replace

        def second_writer_first(source, target):
            with mock.patch("os.replace", replace), mock.patch.object(processes, "this", return_value=mock.Mock(token="other")):
                get_platform().write(self.path, "other")
            replace(source, target)

        with mock.patch("os.replace", second_writer_first):
            get_platform().write(self.path, "mine")
        self.assertEqual((self.content(), len(self.files())), ("mine", 1))

    def test_removing_a_missing_file_is_no_error(self):
        get_platform().write(self.path, "old")
        for _ in range(2):
            get_platform().remove(self.path)
            self.assertEqual(self.files(), [])

    def test_the_error_for_a_folder_without_permission_names_it(self):
        error = PermissionError(errno.EACCES, "Permission denied")
        get_platform().write(self.path, "old")
        folder = os.path.dirname(self.path)
        tasks = {
            "os.listdir": lambda: get_platform().listdir(folder),
            "os.remove": lambda: get_platform().remove(self.path),
            "os.replace": lambda: get_platform().move(folder, f"{folder}_moved"),
            "os.makedirs": lambda: get_platform().write(self.path, "new"),
        }
        for call, task in tasks.items():
            with mock.patch(call, side_effect=error), self.assertRaisesRegex(ConfigError, rf"^{folder}.* \(Permission denied\)"):
                task()
        self.assertEqual(self.content(), "old")

    def test_listdir_is_sorted_and_empty_for_a_missing_folder(self):
        for name in ("b", "a", "c"):
            get_platform().write(os.path.join(self.root, "x", name), name)
        self.assertEqual(get_platform().listdir(os.path.join(self.root, "x")), ["a", "b", "c"])
        self.assertEqual(get_platform().listdir(os.path.join(self.root, "y")), [])

    def test_listdir_leaves_out_names_that_begin_with_a_dot(self):
        for name in ("a", ".DS_Store", "._a", ".nfs0001", os.path.join(".ipynb_checkpoints", "a")):
            get_platform().write(os.path.join(self.root, "x", name), name)
        self.assertEqual(get_platform().listdir(os.path.join(self.root, "x")), ["a"])

    def test_bytes_of_names_that_are_not_utf_8_are_written_as_they_are(self):
        get_platform().write(os.path.join(self.root, "x"), "caf\udce9 \u00e9")
        with open(os.path.join(self.root, "x"), "rb") as file:
            self.assertEqual(file.read(), b"caf\xe9 \xc3\xa9")

    def test_move_replaces_an_existing_folder(self):
        get_platform().write(os.path.join(self.root, "x", "new"), "new")
        get_platform().write(os.path.join(self.root, "y", "old"), "old")
        get_platform().move(os.path.join(self.root, "x"), os.path.join(self.root, "y"))
        self.assertEqual(self.files(), [os.path.join("y", "new")])

    def test_move_to_a_new_path(self):
        get_platform().write(os.path.join(self.root, "x", "new"), "new")
        get_platform().move(os.path.join(self.root, "x"), os.path.join(self.root, "y"))
        self.assertEqual(self.files(), [os.path.join("y", "new")])
