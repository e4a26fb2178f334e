"""The report as JSON, and the table and the verdict that are printed."""

import dataclasses
import json
import math
import unittest

from extraction.checks import Certificate
from extraction.report import Report, headline, read, summary, table, verdict, write
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
    def test_the_table_ends_in_the_verdict(self):
        lines = table(report()).splitlines()
        self.assertTrue(lines[-1].startswith("Verdict: IDENTIFIED. 16 of 16 neurons, none in excess; every weight within 3.0e-15"))

    def test_columns_are_aligned_with_their_titles(self):
        head, hidden, output = table(report()).splitlines()[1:4]
        self.assertEqual(len(head), len(hidden))
        self.assertEqual(hidden.split(), ["hidden", "1", "(relu)", "16", "16", "16", "0", "0", "2.0e-16", "3.0e-15"])
        self.assertEqual(output.split()[:3], ["output", "10", "10"])

    def test_the_table_summarises_losses_and_times(self):
        text = table(report())
        self.assertIn("3, losses 1.0e-08 to 3.0e-08", text)
        self.assertIn("8.2 s: students 7.2, pictures 1.0", text)

    def test_the_network_is_compared_before_and_after_fine_tuning(self):
        before, after = table(report()).splitlines()[6:8]
        self.assertEqual(before, "clustered   weight error 2.0e-03, on 1360 held-out queries mean squared error 1.0e-05, largest 2.0e-02")
        self.assertEqual(after, "fine-tuned  weight error 3.0e-15, on 1360 held-out queries mean squared error 1.0e-30, largest 2.0e-14")

    def test_the_verdict_names_missing_neurons(self):
        layers = content()["layers"]
        layers[0] = layers[0] | {"recovered_width": 17, "matched": 15, "missing": 1, "excess": 2}
        said = verdict(report(identified=False, max_relative_error=0.4, layers=layers))
        self.assertEqual(said, "NOT IDENTIFIED. 15 of 16 neurons matched, 2 in excess; largest weight error 4.0e-01.")

    def test_the_certificate_is_printed_in_one_line(self):
        (line,) = [line for line in table(report()).splitlines() if line.startswith("certificate")]
        self.assertEqual(
            line,
            "certificate accepted: largest error 4.0e-14, on held-out answers 6.0e-14, relative to their standard deviation; "
            "1210 of 1210 unknowns determined, largest difference to a second network 7.0e-13",
        )

    def test_checks_that_were_not_made_are_left_out_of_the_line(self):
        figures = content()["certificate"] | {"rank": None, "weight_error_bound": None, "disagreement": None, "accepted": False}
        (line,) = [line for line in table(report(certificate=figures)).splitlines() if line.startswith("certificate")]
        self.assertTrue(line.startswith("certificate not accepted: largest error"))
        self.assertTrue(line.endswith("; - of 1210 unknowns determined"))

    def test_with_the_teacher_the_verdict_states_the_comparison(self):
        refused = content()["certificate"] | {"accepted": False}
        self.assertTrue(verdict(report(certificate=refused)).startswith("IDENTIFIED."))
        self.assertTrue(verdict(report(identified=False, max_relative_error=0.4)).startswith("NOT IDENTIFIED."))

    def test_without_the_teacher_the_verdict_states_the_certificate(self):
        layers = [{**layer, "teacher_width": None, "matched": None, "max_weight_error": None} for layer in content()["layers"]]
        unknown = {"identified": None, "max_relative_error": None, "layers": layers}
        text = table(report(**unknown))
        self.assertEqual(
            text.splitlines()[-1],
            "Verdict: IDENTIFIED exactly. digits_lenet_16 gives every answer to rounding, and the answers determine all its weights.",
        )
        self.assertEqual([line.split()[-1] for line in text.splitlines()[1:4]], ["recovered", "16", "10"])
        refused = content()["certificate"] | {"accepted": False}
        self.assertTrue(verdict(report(**unknown, certificate=refused)).startswith("NOT IDENTIFIED, because"))

    def graded(self, *open_neurons, **figures):
        """The verdict without the teacher's weights, for a network with errors of 1e-3, and other figures."""
        exact = content()["certificate"] | {"residual": 4e-3, "held_out_residual": 4e-3, "disagreement": None}
        precise = {"noise": 1e-3, "held_out_excess": 0.5, "structure": -1.0, "error_95": 2e-4, "resolution": 1e3, "signs_resolved": True}
        certificate = Certificate.of(exact | precise | figures, "decimals:3", open_neurons, 16)
        layers = [dataclasses.replace(layer, matched=None) for layer in report().layers]
        return verdict(dataclasses.replace(report(), identified=None, layers=layers, certificate=certificate))

    def test_the_verdict_states_the_precision_of_the_answers(self):
        self.assertEqual(
            self.graded(),
            "IDENTIFIED to the precision of the answers. No weight of digits_lenet_16 is off by more than 2.0e-04 (95%), relative to the "
            "largest in its layer; the answers have errors of 1.0e-03 of their standard deviation (precision: decimals:3).",
        )

    def test_the_verdict_names_what_no_answer_tells(self):
        said = self.graded("neuron 3", "neuron 5", error_95=None, resolution=None, signs_resolved=None, rank=1200)
        self.assertTrue(
            said.startswith("IDENTIFIED but for neuron 3, neuron 5, whose weights the answers leave open by more than 1%;"), said
        )
        self.assertIn("Next: use more queries", said)
        many = self.graded(*(f"neuron {place}" for place in range(8)), error_95=0.1)
        self.assertIn("neuron 4 and 3 more, whose weights", many)

    def test_the_verdict_says_why_a_network_is_not_identified_and_what_to_try(self):
        cases = {
            "depend on the query, which noise does not. Next: train the students longer": {"structure": 40.0},
            "but 2.0e-01 on held-out answers. Next: use more queries": {"held_out_excess": 50.0, "held_out_residual": 0.2},
            "100 numbers in the answers are too few for 1210 unknowns. Next: use more queries": {"equations": 100},
            "the errors are 3.0e+01 times what --answers decimals:3 allows": {"error_ratio": 30.0},
            "too few to tell noise from a wrong network": {"structure": None},
            "two neurons have the same or opposite directions": {"resolution": 2.0},
            "some neurons can change sign together": {"signs_resolved": False},
            "too large to examine its weights": {"rank": None},
        }
        for expected, figures in cases.items():
            with self.subTest(expected):
                said = self.graded(**figures)
                self.assertTrue(said.startswith("NOT IDENTIFIED, because "), said)
                self.assertIn(expected, said)

    def test_a_verdict_is_not_softened_where_all_neurons_are_open(self):
        said = self.graded(*(f"neuron {place}" for place in range(16)), error_95=0.5)
        self.assertTrue(said.startswith("NOT IDENTIFIED, because the answers leave the weights of most neurons open"), said)

    def test_the_headline_is_what_was_found(self):
        self.assertEqual(headline(report())[0], "IDENTIFIED")
        unknown = dataclasses.replace(report(), identified=None)
        self.assertEqual(headline(unknown)[0], "IDENTIFIED exactly")

    def test_the_table_ends_in_the_advice_where_there_is_any(self):
        self.assertEqual(table(report(advice=["Use more queries."])).splitlines()[-1], "Use more queries.")
        self.assertIn("Verdict", table(report()).splitlines()[-1])

    def test_the_verdict_names_what_no_query_tells(self):
        layers = [{**layer, "teacher_width": None, "matched": None, "max_weight_error": None} for layer in content()["layers"]]
        unknown = {"identified": None, "max_relative_error": None, "layers": layers}
        remarks = ["column 3 of X is constant and left out: the weights from it are 0"]
        found = report(**unknown, remarks=remarks)
        found = dataclasses.replace(found, certificate=found.certificate.with_open(16))
        self.assertIs(found.certificate.accepted, False)
        self.assertEqual(next(check.shown for check in found.certificate.checks if check.name == "rank"), "1,210 of 1,226")
        wanted = f"IDENTIFIED but for what no query tells. For digits_lenet_16, every answer is given to rounding, but {remarks[0]}."
        self.assertEqual(verdict(found), wanted)
        self.assertIn(f"note        {remarks[0]}", table(found))
        worse = content()["certificate"] | {"residual": 1e-3, "accepted": False}
        self.assertTrue(verdict(report(**unknown, remarks=remarks, certificate=worse)).startswith("NOT IDENTIFIED"))

    def test_a_written_report_is_read_back(self):
        write(self.root, report())
        self.assertEqual(read(self.root), report())
        with open(paths.report(self.root)) as file:
            written = json.load(file)
        self.assertEqual(written.keys(), content().keys() | {"advice", "remarks", "queries", "shortage"})
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
        self.assertRegex(table(again), "largest error -, on held-out answers -, relative")
        self.assertRegex(table(again), "Verdict: NOT IDENTIFIED. .* largest weight error -.")
        self.assertTrue(math.isnan(summary(json.loads(again.to_json()))["max_abs_error"]))

    def test_a_report_with_plain_figures_has_the_same_checks(self):
        get_platform().write(paths.report(self.root), json.dumps(content()))
        self.assertEqual(read(self.root), report())
        refused = content()["certificate"] | {"accepted": False}
        self.assertIs(report(certificate=refused).certificate.accepted, False)

    def test_the_summary_has_the_values_that_are_listed_with_a_run(self):
        figures = {"identified": True, "accepted": True, "max_relative_error": 3e-15, "max_abs_error": 2e-14, "seconds": 8.25}
        self.assertEqual(summary(content()), figures)
        self.assertEqual(summary(dataclasses.asdict(report())), figures)
        self.assertEqual(summary(content(queries={"start": 16, "training": 84})), figures | {"queries": 100})

    def test_queries_are_shown_by_phase_and_a_budget_that_ended_too_soon_in_the_verdict(self):
        asked = {"queries": {"start": 16, "training": 1984}, "shortage": "--query_budget 2000 allows 1,992 of the 5,000 queries"}
        self.assertIn("queries     2,000: start 16, training 1,984", table(report(**asked)))
        self.assertNotIn("--query_budget", verdict(report(**asked)))
        worse = report(**asked, identified=None, certificate=content()["certificate"] | {"residual": 1e-3, "accepted": False})
        self.assertTrue(verdict(worse).endswith(". --query_budget 2000 allows 1,992 of the 5,000 queries."))

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
