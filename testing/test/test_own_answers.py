"""The cases of the benchmark are what they say, and it notices what falls short."""

import dataclasses
import os
import tempfile
import unittest

import numpy as np
import torch

from extraction.certification.checks import Certificate
from extraction.report import Comparison, FunctionError, LayerScore, Report, StudentsSummary
from testing import cases, planted
from testing.benchmarks.own_answers import grade_of, judged
from testing.planted import Recovered

EXACT_ANSWERS = ["far_columns", "column_scales", "far_outputs", "output_scales", "weak_output", "correlated", "flat_directions"]
FUNCTION = FunctionError(10, 0.0, 0.0)
SCORES = [LayerScore(7), LayerScore(2)]
BEFORE, STUDENTS = Comparison(None, SCORES, FUNCTION), StudentsSummary(1, [0.0], "")
REPORT = Report(None, None, SCORES, FUNCTION, BEFORE, STUDENTS, "tanh", "", "", Certificate([], True), {})


class CasesTest(unittest.TestCase):
    def test_the_planted_network_gives_the_answers(self):
        for name in EXACT_ANSWERS:
            with self.subTest(name):
                case = cases.make(name)
                torch.testing.assert_close(case.layers.pre_activations(case.queries), case.answers, rtol=1e-10, atol=1e-12)

    def test_answers_with_errors_are_near_those_of_the_network(self):
        for name, largest in (("single_precision", 2e-6), ("decimals", 5.1e-5), ("noise", 6e-3)):
            with self.subTest(name):
                case = cases.make(name)
                error = (case.layers.pre_activations(case.queries.double()) - case.answers.double()).abs().max()
                self.assertLess(0, float(error))
                self.assertLess(float(error), largest)

    def test_probabilities_are_those_of_the_network(self):
        case = cases.make("probabilities")
        torch.testing.assert_close(case.layers.pre_activations(case.queries).softmax(1), case.answers)
        self.assertLess(float(case.layers.pre_activations(case.queries).mean(1).abs().max()), 1e-14)
        case = cases.make("one_probability")
        torch.testing.assert_close(case.layers.pre_activations(case.queries).sigmoid(), case.answers)

    def test_a_number_makes_the_same_case_again_and_another_one_another(self):
        one, again, other = (cases.make("noise", number) for number in (0, 0, 1))
        self.assertTrue(torch.equal(one.answers, again.answers))
        self.assertFalse(torch.equal(one.answers, other.answers))

    def test_a_table_has_a_header_and_as_many_decimals_as_it_should(self):
        case = cases.make("decimals")
        with tempfile.TemporaryDirectory() as folder:
            _, path, *rest = case.write(folder)
            self.assertEqual((os.path.basename(path), rest), ("answers.csv", ["--outputs", "3"]))
            values = np.loadtxt(path, delimiter=",", skiprows=1)
        np.testing.assert_array_equal(values, torch.cat([case.queries, case.answers], 1).numpy())


class JudgedTest(unittest.TestCase):
    def setUp(self):
        self.case = cases.make("far_columns")
        self.found = Recovered(REPORT, self.case.layers, None)

    def test_a_right_network_is_ok(self):
        cells, short = judged(self.case, "Verdict: IDENTIFIED exactly. It is.", self.found)
        self.assertEqual((cells[:2], short), (["exactly", "7 of 7"], []))

    def test_another_grade_falls_short(self):
        _, short = judged(self.case, "Verdict: NOT IDENTIFIED, because of something.", self.found)
        self.assertEqual(short, ["the verdict should be: exactly"])
        self.assertEqual(grade_of("some lines\nError: no such file"), "Error: no such file")

    def test_a_missing_neuron_a_wrong_weight_and_a_missing_line_fall_short(self):
        first, last = self.case.layers.vectors
        fewer = dataclasses.replace(self.found, layers=self.case.layers.replace(first[1:], last[:, 1:]))
        cells, short = judged(self.case, "Verdict: IDENTIFIED exactly.", fewer)
        self.assertEqual((cells[1:], short), (["6 of 7", "-"], ["neurons are missing", "the network has the sizes [4, 6, 2]"]))
        wrong = dataclasses.replace(self.found, layers=self.case.layers.replace(first, last * (1 + 1e-8)))
        self.assertEqual(judged(self.case, "Verdict: IDENTIFIED exactly.", wrong)[1], ["a weight is off by more than 1e-09"])
        asked = dataclasses.replace(self.case, lines=["wider students"])
        self.assertEqual(judged(asked, "Verdict: IDENTIFIED exactly.", self.found)[1], ["it does not say /wider students/"])

    def test_error_bars_that_do_not_hold_fall_short(self):
        case = dataclasses.replace(self.case, grades=(cases.PRECISE,), error=1.0)
        first, last = case.layers.vectors
        changed = last.clone()
        changed[0, 0] += 1e-3
        errors = [torch.full_like(first, 1e-4), torch.full_like(last, 1e-4)]
        found = Recovered(REPORT, case.layers.replace(first, changed), errors)
        self.assertEqual(judged(case, "Verdict: IDENTIFIED to the precision of", found)[1], ["a weight is off by 10.0 standard errors"])
        self.assertEqual(judged(case, "Verdict: IDENTIFIED to the precision of", self.found)[1], ["there are no error bars"])
        self.assertEqual(planted.shared_neurons(case.layers, found.layers, case.queries), 7)


if __name__ == "__main__":
    unittest.main()
