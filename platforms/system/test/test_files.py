"""Reading files that may be damaged or foreign."""

import os
from unittest import mock

from foundations import paths
from foundations.errors import ConfigError
from platforms.platform import get_platform
from platforms.system import files
from testing.test_case import TestCase


class FilesTest(TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.root, "record")

    def assert_refused(self, content: str | bytes, why: str):
        get_platform().write(self.path, content)
        with self.assertRaises(ConfigError) as caught:
            files.read_json(self.path, "run it again")
        self.assertRegex(str(caught.exception), f"^{self.path} is damaged .*{why}.*; run it again$")

    def test_written_content_is_read_back(self):
        get_platform().write(self.path, '{"größer": [1, 2.5, null]}')
        self.assertEqual(files.read_json(self.path, ""), {"größer": [1, 2.5, None]})
        self.assertEqual(files.read_text(self.path, ""), '{"größer": [1, 2.5, null]}')

    def test_invalid_json_is_damaged(self):
        for content in ("", "{", '{"a": 1', "__import__('os')", '"a\nb"'):
            self.assert_refused(content, "")

    def test_bytes_that_are_not_text_are_damaged(self):
        self.assert_refused(b"\xff\xfe\x00", "not text")

    def test_json_that_is_nested_too_deeply_is_damaged(self):
        for opening in ("[", '{"a":'):
            self.assert_refused(opening * 200_000, "nested too deeply")

    def test_a_file_that_is_too_long_is_damaged_and_not_parsed(self):
        self.assert_refused("[" + "0," * (files.LONGEST_JSON // 2) + "0]", "more than 16,777,216 characters")

    def test_a_number_of_very_many_digits_is_damaged(self):
        self.assert_refused("1" * 100_000, "digits")

    def test_text_with_control_characters_is_damaged(self):
        for content in ('"\\u001b[2J"', '[[["\\u0007"]]]', '{"a\\u0000": 1}', '{"a": {"b": "\\r"}}'):
            self.assert_refused(content, "not plain text")

    def test_paths_that_are_not_utf_8_are_plain_text(self):
        get_platform().write(self.path, '{"path": "caf\\udce9"}')
        self.assertEqual(files.read_json(self.path, ""), {"path": "caf\udce9"})
        self.assert_refused('"caf\\udce9\\u001b"', "not plain text")

    def test_a_file_is_written_only_if_its_content_differs_and_is_locked_meanwhile(self):
        locked, write = [], get_platform().write

        def recorded_write(path: str, content: bytes):
            locked.append(os.path.exists(paths.lock_of(path)))
            write(path, content)

        with mock.patch.object(type(get_platform()), "write", staticmethod(recorded_write)):
            for content in (b"one", b"one", b"on", b"on"):
                files.write_if_changed(self.path, content)
                with open(self.path, "rb") as file:
                    self.assertEqual(file.read(), content)
        self.assertEqual(locked, [True, True])
        self.assertEqual(self.files(), ["record"])

    def test_the_error_for_an_unreadable_file_gives_the_reason(self):
        with self.assertRaisesRegex(ConfigError, f"^{self.path} cannot be read .No such file"):
            files.read_text(self.path, "run it again")
        os.mkdir(self.path)
        with self.assertRaisesRegex(ConfigError, f"^{self.path} cannot be read .Is a directory"):
            files.read_text(self.path, "run it again")
