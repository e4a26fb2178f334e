"""What is read from files that anybody may have written."""

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

    def test_what_is_written_is_read(self):
        get_platform().write(self.path, '{"größer": [1, 2.5, null]}')
        self.assertEqual(files.read_json(self.path, ""), {"größer": [1, 2.5, None]})
        self.assertEqual(files.read_text(self.path, ""), '{"größer": [1, 2.5, null]}')

    def test_what_is_no_json_is_damaged(self):
        for content in ("", "{", '{"a": 1', "__import__('os')", '"a\nb"'):
            self.assert_refused(content, "")

    def test_bytes_that_are_no_text_are_damaged(self):
        self.assert_refused(b"\xff\xfe\x00", "no text")

    def test_what_is_nested_too_deeply_is_damaged(self):
        for opening in ("[", '{"a":'):
            self.assert_refused(opening * 200_000, "nested too deeply")

    def test_what_is_enormous_is_damaged_and_not_parsed(self):
        self.assert_refused("[" + "0," * (files.LONGEST_JSON // 2) + "0]", "more than 16,777,216 characters")

    def test_a_number_of_very_many_digits_is_damaged(self):
        self.assert_refused("1" * 100_000, "digits")

    def test_text_that_a_terminal_would_obey_is_damaged(self):
        for content in ('"\\u001b[2J"', '[[["\\u0007"]]]', '{"a\\u0000": 1}', '{"a": {"b": "\\r"}}'):
            self.assert_refused(content, "no plain text")

    def test_a_file_is_refreshed_where_it_has_other_content_and_is_locked_meanwhile(self):
        seen, write = [], get_platform().write

        def noted(path: str, content: bytes):
            seen.append(os.path.exists(paths.lock_of(path)))
            write(path, content)

        with mock.patch.object(type(get_platform()), "write", staticmethod(noted)):
            for content in (b"one", b"one", b"on", b"on"):
                files.write_if_changed(self.path, content)
                with open(self.path, "rb") as file:
                    self.assertEqual(file.read(), content)
        self.assertEqual(seen, [True, True])
        self.assertEqual(self.files(), ["record"])

    def test_what_cannot_be_read_is_named_with_the_reason(self):
        with self.assertRaisesRegex(ConfigError, f"^{self.path} cannot be read .No such file"):
            files.read_text(self.path, "run it again")
        os.mkdir(self.path)
        with self.assertRaisesRegex(ConfigError, f"^{self.path} cannot be read .Is a directory"):
            files.read_text(self.path, "run it again")
