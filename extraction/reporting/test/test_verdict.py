"""What a report says: the verdict with its reasons, what to try next, and the table."""

import dataclasses
import unittest

from extraction.certification.checks import Certificate
from extraction.report import Columns, Report
from extraction.reporting.verdict import next_steps, of, table
from extraction.test.test_report import content, report

UNKNOWN = {
    "identified": None,
    "max_relative_error": None,
    "layers": [{**layer, "teacher_width": None, "matched": None, "max_weight_error": None} for layer in content()["layers"]],
}


def graded(*open_neurons: str, **figures) -> Report:
    """A report without the teacher's weights, for a network with errors of 1e-3, and other figures."""
    exact = content()["certificate"] | {"residual": 4e-3, "held_out_residual": 4e-3, "disagreement": None}
    precise = {"noise": 1e-3, "held_out_excess": 0.5, "structure": -1.0, "error_95": 2e-4, "resolution": 1e3, "signs_resolved": True}
    certificate = Certificate.of(exact | precise | figures, "decimals:3", open_neurons, 16)
    return dataclasses.replace(report(**UNKNOWN), certificate=certificate)


class TestStatedErrors(unittest.TestCase):
    def test_noise_that_is_larger_than_stated_is_told_from_other_errors(self):
        self.assertTrue(graded(error_ratio=8.0).certificate.exceeds_stated_errors)
        for other in ({}, {"error_ratio": 0.9}, {"error_ratio": 8.0, "structure": 40.0}, {"error_ratio": 8.0, "held_out_excess": 9.0}):
            self.assertFalse(graded(**other).certificate.exceeds_stated_errors)


class TestTable(unittest.TestCase):
    def test_it_ends_in_the_verdict(self):
        lines = table(report()).splitlines()
        self.assertTrue(lines[-1].startswith("Verdict: IDENTIFIED. 16 of 16 neurons, none in excess; every weight within 3.0e-15"))

    def test_queries_are_shown_by_phase_and_a_budget_that_ended_too_soon_in_the_verdict(self):
        asked = {"queries": {"start": 16, "training": 1984}, "shortage": "--query_budget 2000 allows 1,992 of the 5,000 queries"}
        self.assertIn("queries     2,000: start 16, training 1,984", table(report(**asked)))
        self.assertNotIn("--query_budget", str(of(report(**asked))))
        worse = report(**UNKNOWN, **asked, certificate=content()["certificate"] | {"residual": 1e-3, "accepted": False})
        self.assertTrue(str(of(worse)).endswith(" --query_budget 2000 allows 1,992 of the 5,000 queries."))

    def test_columns_are_aligned_with_their_titles(self):
        head, hidden, output = table(report()).splitlines()[1:4]
        self.assertEqual(len(head), len(hidden))
        self.assertEqual(hidden.split(), ["hidden", "1", "(relu)", "16", "16", "16", "0", "0", "2.0e-16", "3.0e-15"])
        self.assertEqual(output.split()[:3], ["output", "10", "10"])

    def test_losses_and_times_are_summarised(self):
        text = table(report())
        self.assertIn("3, losses 1.0e-08 to 3.0e-08", text)
        self.assertIn("8.2 s: students 7.2, pictures 1.0", text)

    def test_the_network_is_compared_before_and_after_fine_tuning(self):
        before, after = table(report()).splitlines()[6:8]
        self.assertEqual(before, "clustered   weight error 2.0e-03, on 1360 held-out queries mean squared error 1.0e-05, largest 2.0e-02")
        self.assertEqual(after, "fine-tuned  weight error 3.0e-15, on 1360 held-out queries mean squared error 1.0e-30, largest 2.0e-14")

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

    def test_the_command_to_try_is_a_line_of_its_own(self):
        found = dataclasses.replace(graded(structure=40.0), advice=["The students are too narrow."], command="python EC.py extract --lr 1")
        lines = table(found).splitlines()
        self.assertEqual(lines[-3:], ["The students are too narrow.", "Next:", "    python EC.py extract --lr 1"])
        self.assertEqual(len([line for line in lines if "Next" in line]), 1)


class TestVerdict(unittest.TestCase):
    def test_with_the_teacher_it_states_the_comparison(self):
        refused = content()["certificate"] | {"accepted": False}
        self.assertEqual(of(report(certificate=refused)).found, "IDENTIFIED")
        layers = content()["layers"]
        layers[0] = layers[0] | {"recovered_width": 17, "matched": 15, "missing": 1, "excess": 2}
        said = of(report(identified=False, max_relative_error=0.4, layers=layers, certificate=refused))
        self.assertEqual(str(said), "NOT IDENTIFIED. 15 of 16 neurons matched, 2 in excess; largest weight error 4.0e-01.")
        said = of(report(identified=False, max_relative_error=0.4, layers=layers))
        but = "But digits_lenet_16 gives every answer to rounding, and the answers determine all its weights."
        self.assertTrue(str(said).endswith(f"largest weight error 4.0e-01. {but}"))
        self.assertTrue(said.is_negative)

    def test_without_the_teacher_it_states_the_certificate(self):
        text = table(report(**UNKNOWN))
        self.assertEqual(
            text.splitlines()[-1],
            "Verdict: IDENTIFIED exactly. digits_lenet_16 gives every answer to rounding, and the answers determine all its weights.",
        )
        self.assertEqual([line.split()[-1] for line in text.splitlines()[1:4]], ["recovered", "16", "10"])
        refused = content()["certificate"] | {"accepted": False}
        self.assertTrue(of(report(**UNKNOWN, certificate=refused)).found.startswith("NOT IDENTIFIED, because"))

    def test_it_states_the_precision_of_the_answers(self):
        self.assertEqual(
            str(of(graded())),
            "IDENTIFIED to the precision of the answers (error of a weight at most 2.0e-04, 95%). Errors of the weights of "
            "digits_lenet_16 are shares of the largest weight in their layer; the answers have errors of 1.0e-03 of their standard "
            "deviation (precision: decimals:3).",
        )
        self.assertEqual(next_steps(graded()), [])

    def test_it_names_what_no_answer_tells(self):
        said = of(graded("neuron 3", "neuron 5", error_95=None, resolution=None, signs_resolved=None, rank=1200))
        self.assertEqual(said.found, "IDENTIFIED but for neuron 3 and neuron 5, whose weights the answers leave open by more than 1%")
        self.assertFalse(said.is_negative)
        many = of(graded(*(f"neuron {place}" for place in range(8)), error_95=0.1))
        self.assertIn("neuron 4 and 3 more, whose weights", many.found)

    def test_it_says_why_a_network_is_not_identified_and_what_to_try(self):
        cases = {
            "depend on the query, which noise does not. Train the students longer": {"structure": 40.0},
            "but 2.0e-01 on held-out answers. Use more queries": {"held_out_excess": 50.0, "held_out_residual": 0.2},
            "100 numbers in the answers are too few for 1210 unknown weights and biases. Use more queries": {"equations": 100},
            "the errors are 3.0e+01 times what the precision of the answers (decimals:3) allows": {"error_ratio": 30.0},
            "too few to tell noise from a wrong network": {"structure": None},
            "two neurons have the same or opposite directions": {"resolution": 2.0},
            "some neurons can change sign together": {"signs_resolved": False},
            "too large to examine its weights": {"rank": None},
        }
        for expected, figures in cases.items():
            with self.subTest(expected):
                found = graded(**figures)
                said = f"{of(found)} {' '.join(next_steps(found))}"
                self.assertTrue(said.startswith("NOT IDENTIFIED, because "), said)
                self.assertIn(expected, said)

    def test_advice_replaces_what_the_certificate_alone_suggests(self):
        found = dataclasses.replace(graded(structure=40.0), advice=["The students are too narrow."])
        self.assertEqual(next_steps(found), ["The students are too narrow."])
        self.assertNotIn("longer", table(found))

    def test_it_is_not_softened_where_all_neurons_are_open(self):
        said = str(of(graded(*(f"neuron {place}" for place in range(16)), error_95=0.5)))
        self.assertTrue(said.startswith("NOT IDENTIFIED, because the answers leave the weights of most neurons open"), said)

    def test_it_names_the_inputs_that_no_query_tells(self):
        remarks = ["column 3 of X is constant and left out: the weights from it are 0"]
        found = report(**UNKNOWN, remarks=remarks)
        found = dataclasses.replace(found, certificate=found.certificate.with_open(16), columns=Columns(open=[3]))
        self.assertIs(found.certificate.accepted, False)
        self.assertEqual(next(check.shown for check in found.certificate.checks if check.name == "rank"), "1,210 of 1,226")
        wanted = "IDENTIFIED but for the weights from column 3 of X, which no query tells in full. "
        wanted += "digits_lenet_16 gives every answer to rounding. Column 3 of X is constant and left out: the weights from it are 0."
        self.assertEqual(str(of(found)), wanted)
        self.assertIn(f"note        {remarks[0]}", table(found))
        named = dataclasses.replace(found, columns=Columns(["age", "bmi", "sex", "s1"], ["y"], [0, 3]))
        self.assertIn("the weights from columns age and s1 of X", of(named).found)
        worse = content()["certificate"] | {"residual": 1e-3, "accepted": False}
        self.assertTrue(of(report(**UNKNOWN, remarks=remarks, certificate=worse)).is_negative)


if __name__ == "__main__":
    unittest.main()
