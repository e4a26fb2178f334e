"""Standard output and standard error that are closed, full, without a reader, or unable to show all characters."""

import contextlib
import io
import os
import subprocess
import sys
import unittest
from unittest import mock

import EC
from foundations import tables
from platforms.system import output

CHECKOUT = os.path.dirname(os.path.abspath(EC.__file__))


def program(body: str) -> list[str]:
    """A command that runs a function with this body as the program."""
    lines = body.replace("\n", "\n    ")
    return [
        sys.executable,
        "-c",
        f"import os, sys\nfrom platforms.system import output\ndef main(_):\n    {lines}\nsys.exit(output.run(main, []))",
    ]


def shell(body: str, redirections: str, **environment: str) -> tuple[int, str, str]:
    """Runs a program with redirections of the shell; returns the exit status of its first command, its output and its errors."""
    command = ["bash", "-c", f'"$@" {redirections}; exit ${{PIPESTATUS[0]}}', "bash", *program(body)]
    done = subprocess.run(command, capture_output=True, cwd=CHECKOUT, env={**os.environ, **environment}, timeout=60)
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "surrogateescape")


class StreamsTest(unittest.TestCase):
    def test_a_reader_that_ends_ends_the_program_without_a_message(self):
        self.assertEqual(shell("while True: print('line')", "| head -1"), (141, "line\n", ""))
        self.assertEqual(shell("while True: print('line', file=sys.stderr)", "2>&1 | head -1"), (141, "line\n", ""))

    def test_a_reader_that_has_ended_is_noticed_at_the_end(self):
        self.assertEqual(shell("import time; time.sleep(0.2); print('line'); return 0", "| true"), (141, "", ""))

    def test_a_full_disk_is_one_line_and_the_program_goes_on(self):
        body = "[print('line', flush=True) for _ in range(3)]\nprint('end', file=sys.stderr)\nreturn 0"
        line = "EC.py: standard output cannot be written (No space left on device)\n"
        self.assertEqual(shell(body, ">/dev/full"), (1, "", f"{line}end\n"))
        self.assertEqual(shell("print('line'); return 3", ">/dev/full"), (3, "", line))
        self.assertEqual(shell("print('line'); print('x', file=sys.stderr); return 0", "2>/dev/full"), (0, "line\n", ""))

    def test_closed_streams_discard_and_files_do_not_get_their_numbers(self):
        body = (
            "with open('/dev/null', 'w') as file: number = file.fileno()\n"
            "print('line'); print('line', file=sys.stderr); os.write(2, b'text')\n"
            "return int(number < 3 or sys.stdin.isatty() or sys.stderr.isatty())"
        )
        for closed in ("<&- >&- 2>&-", ">&-", "2>&-", ">&- 2>&-"):
            self.assertEqual(shell(body, closed)[0], 0, closed)

    def test_an_ascii_terminal_gets_ascii(self):
        body = "print('1 \\u00b1 2 \\u00e9 \\u2026 \\udcff'); return 0"
        for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
            self.assertEqual(shell(body, "", **environment), (0, "1 +- 2 \\xe9 ~ \\udcff\n", ""))
        self.assertEqual(shell(body, "", PYTHONIOENCODING="utf-8"), (0, "1 \u00b1 2 \u00e9 \u2026 \\udcff\n", ""))

    def test_output_is_not_held_back_without_a_buffer(self):
        self.assertEqual(shell("print('line'); os._exit(0)", "", PYTHONUNBUFFERED="1"), (0, "line\n", ""))

    def test_a_defect_keeps_its_traceback_after_the_output(self):
        status, out, err = shell("print('line'); raise ValueError('wrong')", "2>&1")
        self.assertEqual((status, out.splitlines()[0], out.splitlines()[-1], err), (1, "line", "ValueError: wrong", ""))


class TableTest(unittest.TestCase):
    def test_columns_are_aligned_in_ascii(self):
        rows = [["a", "b"], ["1 ± 2", "x"], ["1", "y"]]
        stream = io.TextIOWrapper(io.BytesIO(), "ascii")
        with contextlib.redirect_stdout(stream):
            self.assertEqual(tables.aligned(rows), ["a       b", "1 +- 2  x", "1       y"])
        with mock.patch("sys.stdout", None):
            self.assertEqual(tables.aligned(rows)[1], "1 ± 2  x")

    def test_the_error_of_a_reader_is_no_failure_of_a_run(self):
        self.assertFalse(issubclass(output.ReaderGone, Exception))
