"""The global platform, and its access to files."""

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
    def test_a_job_sees_the_platform_that_runs_it(self):
        seen, mine = [], Platform(num_workers=3)
        mine.run_job(lambda: seen.append(get_platform()))
        self.assertIs(seen[0], mine)

    def test_the_old_platform_is_back_after_the_job(self):
        before = get_platform()
        Platform().run_job(lambda: None)
        self.assertIs(get_platform(), before)

    def test_the_old_platform_is_back_after_a_job_that_fails(self):
        before = get_platform()
        for failure in (ValueError, ConfigError, KeyboardInterrupt):
            with self.subTest(failure=failure.__name__):
                with self.assertRaises(failure):
                    Platform().run_job(mock.Mock(side_effect=failure))
                self.assertIs(get_platform(), before)

    def test_jobs_within_jobs_see_their_own(self):
        outer, inner, seen = Platform(num_workers=1), Platform(num_workers=2), []

        def job():
            inner.run_job(lambda: seen.append(get_platform()))
            seen.append(get_platform())

        outer.run_job(job)
        self.assertEqual([id(each) for each in seen], [id(inner), id(outer)])

    def test_where_none_is_installed_the_local_one_serves(self):
        with mock.patch.object(base, "_PLATFORM", None):
            self.assertIsInstance(get_platform(), Platform)

    def test_a_lone_process_is_the_primary_one(self):
        self.assertEqual((Platform().rank, Platform().world_size, Platform().is_primary_process), (0, 1, True))

    def test_fewer_than_no_workers_are_an_error(self):
        with self.assertRaisesRegex(ConfigError, "^--num_workers: -1 .*valid: 0 or more"):
            Platform(num_workers=-1)

    def test_an_unknown_platform_is_an_error_that_lists_the_known(self):
        with self.assertRaisesRegex(ConfigError, "^--platform: 'locla' .*'local'.*valid: .*local"):
            registry.get("locla")


class TestFiles(TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.root, "run", "main", "logger")

    def content(self) -> str:
        with get_platform().open(self.path) as file:
            return file.read()

    def test_what_is_written_is_read_back(self):
        get_platform().write(self.path, "größer\n")
        self.assertEqual(self.content(), "größer\n")
        with get_platform().open(self.path, "rb") as file:
            self.assertEqual(file.read(), "größer\n".encode())

    def test_bytes_are_written_as_they_are(self):
        get_platform().write(self.path, b"\xff\r\n\x00")
        with get_platform().open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"\xff\r\n\x00")

    def test_writing_makes_the_folders_and_leaves_one_file(self):
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

    def test_a_first_write_that_fails_leaves_no_file_of_that_name(self):
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

    def test_the_new_content_is_on_the_disk_before_it_takes_the_name_and_the_name_before_the_write_is_over(self):
        calls, fsync, replace = [], os.fsync, os.replace

        def note_fsync(descriptor):
            calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
            fsync(descriptor)

        def note_replace(source, target):
            calls.append("name")
            replace(source, target)

        with mock.patch("os.fsync", note_fsync), mock.patch("os.replace", note_replace):
            get_platform().write(self.path, "new")
        self.assertEqual(calls, ["file", "name", "folder"])

    def test_a_write_that_fails_or_is_interrupted_leaves_nothing_behind(self):
        get_platform().write(self.path, "old")
        before = self.files()
        for failure in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):
            for call in ("os.fsync", "os.replace"):
                with mock.patch(call, side_effect=failure), self.assertRaises((ConfigError, KeyboardInterrupt)):
                    get_platform().write(self.path, "new")
                self.assertEqual((self.files(), self.content()), (before, "old"))

    def test_where_folders_cannot_be_brought_to_the_disk_files_are_written(self):
        fsync = os.fsync

        def refuse_folders(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "Invalid argument")
            fsync(descriptor)

        with mock.patch("os.fsync", refuse_folders):
            get_platform().write(self.path, "new")
        self.assertEqual(self.content(), "new")

    def test_old_content_that_is_to_be_kept_moves_to_another_name(self):
        kept = os.path.join(os.path.dirname(self.path), "previous")
        for number in range(3):
            get_platform().write(self.path, f"content {number}", keep=kept)
        with open(kept) as file:
            self.assertEqual((file.read(), self.content()), ("content 1", "content 2"))
        self.assertEqual(len(self.files()), 2)

    def test_writers_do_not_write_to_one_anothers_files(self):
        """A second process that writes the same file in the middle of the first one's write spoils neither."""
        replace = os.replace

        def second_writer_first(source, target):
            with mock.patch("os.replace", replace), mock.patch.object(processes, "this", return_value=mock.Mock(token="other")):
                get_platform().write(self.path, "other")
            replace(source, target)

        with mock.patch("os.replace", second_writer_first):
            get_platform().write(self.path, "mine")
        self.assertEqual((self.content(), len(self.files())), ("mine", 1))

    def test_a_file_is_removed_whether_it_is_there_or_not(self):
        get_platform().write(self.path, "old")
        for _ in range(2):
            get_platform().remove(self.path)
            self.assertEqual(self.files(), [])

    def test_folders_that_the_system_keeps_to_itself_are_named_in_one_line(self):
        refusal = PermissionError(errno.EACCES, "Permission denied")
        get_platform().write(self.path, "old")
        folder = os.path.dirname(self.path)
        tasks = {
            "os.listdir": lambda: get_platform().listdir(folder),
            "os.remove": lambda: get_platform().remove(self.path),
            "os.replace": lambda: get_platform().move(folder, f"{folder}_moved"),
            "os.makedirs": lambda: get_platform().write(self.path, "new"),
        }
        for call, task in tasks.items():
            with mock.patch(call, side_effect=refusal), self.assertRaisesRegex(ConfigError, rf"^{folder}.* \(Permission denied\)"):
                task()
        self.assertEqual(self.content(), "old")

    def test_listing_is_sorted_and_a_missing_folder_is_empty(self):
        for name in ("b", "a", "c"):
            get_platform().write(os.path.join(self.root, "x", name), name)
        self.assertEqual(get_platform().listdir(os.path.join(self.root, "x")), ["a", "b", "c"])
        self.assertEqual(get_platform().listdir(os.path.join(self.root, "y")), [])

    def test_a_moved_folder_takes_the_place_of_another(self):
        get_platform().write(os.path.join(self.root, "x", "new"), "new")
        get_platform().write(os.path.join(self.root, "y", "old"), "old")
        get_platform().move(os.path.join(self.root, "x"), os.path.join(self.root, "y"))
        self.assertEqual(self.files(), [os.path.join("y", "new")])

    def test_a_folder_can_be_moved_to_where_none_is(self):
        get_platform().write(os.path.join(self.root, "x", "new"), "new")
        get_platform().move(os.path.join(self.root, "x"), os.path.join(self.root, "y"))
        self.assertEqual(self.files(), [os.path.join("y", "new")])
