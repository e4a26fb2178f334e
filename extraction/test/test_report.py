"""The report as JSON."""

import dataclasses
import json
import math
import unittest

from extraction.certification.checks import Certificate
from extraction.report import Columns, OutputErrors, Report, Residuals, read, summary, write
from extraction.reporting import verdict
from foundations import paths
from foundations.errors import ConfigError
from platforms.platform import get_platform
from testing.test_case import TestCase


def content(**changes):
    """A report as JSON, in the older format whose certificate is a dictionary of figures."""
    layer = {
        "recovered_width": 16,
        "teacher_width": 16,
        "matched": 16,
        "missing": 0,
        "excess": 0,
        "max_cosine_distance": 2e-16,
        "mean_cosine_distance": 1e-16,
        "max_weight_error": 3e-15,
    }
    return {
        "identified": True,
        "max_relative_error": 3e-15,
        "layers": [layer, layer | {"recovered_width": 10, "teacher_width": 10, "matched": 10}],
        "function": {"queries": 1360, "mse": 1e-30, "max_abs_error": 2e-14},
        "before_finetuning": {"max_relative_error": 2e-3, "layers": [], "function": {"queries": 1360, "mse": 1e-5, "max_abs_error": 2e-2}},
        "certificate": {
            "residual": 4e-14,
            "held_out_residual": 6e-14,
            "equations": 40000,
            "unknowns": 1210,
            "rank": 1210,
            "weight_error_bound": 5e-12,
            "agreement": 1.0,
            "separation": 0.3,
            "signs_settled": True,
            "disagreement": 7e-13,
            "accepted": True,
        },
        "students": {"count": 3, "losses": [2e-8, 1e-8, 3e-8], "weights": "model_ep1_it0.pth"},
        "seconds": {"students": 7.25, "pictures": 1.0},
        "act_fun": "relu",
        "model_name": "digits_lenet_16",
        "model_path": "model_ep2_it0.pth",
    } | changes


def report(**changes) -> Report:
    """The report of `content` as a value."""
    return Report.from_json(content(**changes))


class TestReport(TestCase):
    def test_a_written_report_is_read_back(self):
        write(self.root, report())
        self.assertEqual(read(self.root), report())
        with open(paths.report(self.root)) as file:
            written = json.load(file)
        self.assertEqual(
            written.keys(),
            content().keys()
            | {"advice", "remarks", "command", "residuals", "columns", "notes", "left_out"}
            | {"queries", "shortage", "derivatives"},
        )
        checks = {check["name"]: check for check in written["certificate"]["checks"]}
        self.assertEqual((checks["rank"]["value"], checks["rank"]["limit"], checks["rank"]["met"]), (1210, 1210, True))
        self.assertIs(checks["agreement"]["met"], None)

    def test_figures_that_are_no_numbers_are_null_in_the_file_and_can_be_shown(self):
        nan = math.nan
        figures = content()["certificate"] | {"residual": nan, "held_out_residual": math.inf}
        changes = {"identified": False, "max_relative_error": nan, "function": {"queries": 5, "mse": nan, "max_abs_error": math.inf}}
        write(self.root, report(certificate=figures, **changes))
        with open(paths.report(self.root)) as file:
            self.assertNotRegex(file.read(), "NaN|Infinity")
        again = read(self.root)
        self.assertTrue(math.isnan(again.function.mse) and math.isnan(again.function.max_abs_error))
        self.assertRegex(verdict.table(again), "largest error -, on held-out answers -, relative")
        self.assertRegex(verdict.table(again), "Verdict: NOT IDENTIFIED. .* largest weight error -.")
        self.assertTrue(math.isnan(summary(json.loads(again.to_json()))["max_abs_error"]))

    def test_a_report_with_plain_figures_has_the_same_checks(self):
        get_platform().write(paths.report(self.root), json.dumps(content()))
        self.assertEqual(read(self.root), report())
        refused = content()["certificate"] | {"accepted": False}
        self.assertIs(report(certificate=refused).certificate.accepted, False)

    def test_the_errors_and_names_of_columns_are_read_back(self):
        more = Residuals("roundings", [OutputErrors(1e-16, 1.0, 3.0, 1.1, math.nan)]), Columns(["age", "bmi"], ["score"], [1])
        write(self.root, dataclasses.replace(report(), residuals=more[0], columns=more[1], command="python EC.py extract"))
        again = read(self.root)
        self.assertEqual((again.columns, again.command), (more[1], "python EC.py extract"))
        self.assertTrue(math.isnan(again.residuals.outputs[0].held_out_largest))
        self.assertEqual(again.residuals.outputs[0].training_largest, 3.0)

    def test_the_summary_has_the_values_that_are_listed_with_a_run(self):
        figures = {
            "identified": True,
            "accepted": True,
            "accepted_to_precision": True,
            "max_relative_error": 3e-15,
            "weight_error_95": None,
        }
        figures |= {"max_abs_error": 2e-14, "seconds": 8.25}
        self.assertEqual(summary(content()), figures)
        self.assertEqual(summary(dataclasses.asdict(report())), figures)
        self.assertEqual(summary(content(queries={"start": 16, "training": 84})), figures | {"queries": 100})

    def test_the_summary_has_the_error_of_a_weight_where_the_network_is_accepted_to_the_precision(self):
        figures = content()["certificate"] | {"residual": 1e-3, "noise": 1e-3, "error_95": 2e-4, "resolution": 1e3, "signs_resolved": True}
        for structure, accepted, error in ((-1.0, True, 2e-4), (9.0, False, None)):
            certificate = Certificate.of(figures | {"structure": structure, "held_out_excess": 0.0}, "decimals:3")
            found = summary(dataclasses.asdict(dataclasses.replace(report(), certificate=certificate)))
            self.assertEqual((found["accepted"], found["accepted_to_precision"], found["weight_error_95"]), (False, accepted, error))

    def test_the_error_names_a_damaged_report(self):
        whole = dataclasses.asdict(report())
        text = json.dumps(whole)
        wrong = [text[: len(text) * tenths // 10] for tenths in range(10)]
        wrong += ["[]", "3", "[" * 100_000]
        wrong += [json.dumps({key: value for key, value in whole.items() if key != name}) for name in content()]
        wrong += [json.dumps(whole | {"layers": [{}]}), json.dumps(whole | {"seconds": []}), json.dumps(whole | {"function": {"mse": "0"}})]
        wrong += [json.dumps(whole | {"seconds": {"students": 10**400}}), json.dumps(whole | {"act_fun": "\x1b[2J"})]
        wrong += [json.dumps(whole | {"students": {"count": 0, "losses": [], "weights": "model_ep1_it0.pth"}})]
        wrong += [json.dumps(whole | {"certificate": {"accepted": True, "checks": [{"name": "rank"}]}})]
        for damaged in wrong:
            get_platform().write(paths.report(self.root), damaged)
            with self.assertRaisesRegex(
                ConfigError, f"^{paths.report(self.root)} is damaged .*; delete it and run the same command again$"
            ):
                read(self.root)


if __name__ == "__main__":
    unittest.main()
