"""What the GPU benchmark reports when its sections fail, hang or go on; its figures need a GPU."""

import contextlib
import io
import json
import os
from unittest import mock

import torch

from testing.benchmarks import gpu
from testing.test_case import TestCase


class ReportTest(TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.root, "gpu.json")
        self.report = gpu.Report(self.path, gpu.Options("cpu", True))

    def rows(self) -> list[dict[str, object]]:
        with open(self.path) as file:
            return json.load(file)["rows"]

    def test_the_file_has_every_row_as_soon_as_it_is_there_and_the_newest_of_those_with_one_name(self):
        for value in (1, 2, 3):
            self.report.add("tests", {"what": "passed", "value": value, "unit": "tests", "remark": ""})
            self.report.add("card", {"what": f"figure {value}", "value": value, "unit": "", "remark": ""})
            self.assertEqual([row["value"] for row in self.rows() if row["section"] == "tests"], [value])
            self.assertEqual(len(self.rows()), 1 + value)
        self.assertIn("passed  3 tests", self.report.table("tests"))

    def test_a_section_that_takes_too_long_is_stopped(self):
        gpu.run_section("card", gpu.Options("cpu", True), 0.1, self.report)
        (row,) = self.rows()
        self.assertEqual((row["section"], row["what"], row["value"]), ("card", "ended", "STOPPED"))

    def test_a_section_that_dies_is_an_error(self):
        with mock.patch.object(gpu, "REPOSITORY", self.root):
            gpu.run_section("card", gpu.Options("cpu", True), 60.0, self.report)
        (row,) = self.rows()
        self.assertEqual((row["what"], row["value"], row["remark"]), ("ended", "ERROR", "exit status 1"))
        self.assertIn("No module named", self.report.content["logs"]["card"])

    def test_an_error_is_a_row_and_what_follows_goes_on(self):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
            with gpu.reported("first"):
                raise ValueError("wrong\nin many lines")
            gpu.row("second", 2)
        rows = [json.loads(line.removeprefix(gpu.MARK)) for line in out.getvalue().splitlines()]
        self.assertEqual([(row["what"], row["value"]) for row in rows], [("first", "ERROR"), ("second", 2)])
        self.assertEqual(rows[0]["remark"], "ValueError: wrong")


class SectionTest(TestCase):
    def test_the_cpu_can_compute_all_figures_but_those_in_tf32(self):
        for section in (gpu.card, gpu.convolutions, gpu.students, gpu.clustering):
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
                section(gpu.Options("cpu", True))
            rows = [json.loads(line.removeprefix(gpu.MARK)) for line in out.getvalue().splitlines()]
            failed = [row["what"] for row in rows if row["value"] == "ERROR"]
            self.assertEqual([what for what in failed if "tf32" not in what], [], err.getvalue())
            self.assertGreater(len(rows), len(failed))
            for row in rows:
                if row["what"].endswith("difference") and row["value"] != "ERROR":
                    self.assertEqual(row["value"], 0.0)


class LimitTest(TestCase):
    def test_cards_are_known_by_their_names(self):
        known = {"NVIDIA H100 80GB HBM3": 989, "NVIDIA H100 PCIe": 756, "NVIDIA H200": 989, "NVIDIA A100-SXM4-80GB": 312, "Tesla T4": None}
        for name, limit in known.items():
            with (
                mock.patch.object(torch.cuda, "is_available", lambda: True),
                mock.patch.object(torch.cuda, "get_device_name", lambda name=name: name),
            ):
                self.assertEqual(gpu.limit_of("bf16"), limit, name)
