"""The precision of answers, as it is stated and as their numbers show it."""

import unittest

import torch

from extraction.answers import Answers, deviation, finer, noticed, spreads
from foundations.errors import ConfigError
from foundations.extraction_hparams import ExtractionHparams

VALUES = 3 * torch.randn(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class TestNoticed(unittest.TestCase):
    def test_number_formats_and_decimals_show_in_the_numbers(self):
        cases = {
            "float64": VALUES,
            "float32": VALUES.float().double(),
            "float16": VALUES.half().double(),
            "decimals:0": VALUES.round(),
            "decimals:3": VALUES.round(decimals=3),
            "decimals:9": VALUES.round(decimals=9),
            "decimals:2": (1000 + VALUES).round(decimals=2).float().double(),
        }
        for expected, column in cases.items():
            with self.subTest(expected):
                self.assertEqual(noticed(column), expected)

    def test_whole_numbers_are_no_sign_of_float16(self):
        for column in ((50 * VALUES).round(), (300 * VALUES).clamp(-2000, 2000).round(), (1e6 * VALUES).round()):
            self.assertEqual(noticed(column), "decimals:0")
        self.assertEqual(noticed((300 * VALUES).half().double()), "float16")
        self.assertEqual(noticed((1e12 * VALUES).float().double()), "float32")  # whole numbers, which are less exact than to one

    def test_decimals_show_in_small_numbers_of_float32(self):
        self.assertEqual(noticed(VALUES.round(decimals=5).float().double()), "decimals:5")

    def test_a_constant_output_shows_nothing(self):
        self.assertEqual(noticed(torch.full((50,), 2.5).double()), "float64")

    def test_outputs_may_differ_in_precision(self):
        answers = Answers.of(torch.stack([VALUES, VALUES.round(decimals=2)], 1))
        self.assertEqual((answers.precision, answers.name), (("float64", "decimals:2"), "decimals:2, float64"))
        self.assertEqual(answers.shares[0], 0)

    def test_the_deviation_is_that_of_the_errors(self):
        for precision, column in (("decimals:3", VALUES.round(decimals=3)), ("float32", VALUES.float()), ("float16", VALUES.half())):
            with self.subTest(precision):
                errors = float((column.double() - VALUES).square().mean().sqrt())
                self.assertLess(errors, deviation(precision, VALUES) * 1.05)
                self.assertGreater(errors, deviation(precision, VALUES) / 3)

    def test_shares_do_not_depend_on_shifts_and_scales_of_noise(self):
        noise = Answers.of(VALUES[:, None], "noise:0.03")
        self.assertAlmostEqual(noise.shares[0], 0.03 / float(VALUES.std(correction=0)))
        self.assertTrue(noise.is_given)

    def test_measured_noise_is_the_precision_where_it_is_larger(self):
        answers = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor([1, 100.0])
        known = Answers.of(answers).with_noise((0.01, 0.0), answers)
        self.assertEqual((known.precision, known.is_given), (("noise:0.01", "float64"), False))
        self.assertAlmostEqual(known.shares[0], 0.01 / float(answers[:, 0].std()), places=5)
        self.assertEqual(known.shares[1], 0.0)

    def test_exact_answers_allow_no_error(self):
        self.assertEqual(Answers.exact(2).allowed(100), [0, 0])

    def test_an_output_that_is_constant_has_the_spread_of_the_others(self):
        answers = torch.stack([VALUES, torch.ones_like(VALUES)], 1)
        self.assertAlmostEqual(float(spreads(answers)[0]), float(VALUES.std(correction=0)))
        self.assertAlmostEqual(float(spreads(answers)[1]), float(VALUES.std(correction=0)) / 2**0.5)
        self.assertEqual(spreads(torch.ones(5, 1)).tolist(), [1.0])

    def test_rounding_to_float64_shows_in_a_mixture_that_varies_little(self):
        answers = torch.stack([VALUES, VALUES + 1e-7 * VALUES.flip(0), 1e6 + VALUES], 1)
        exact, difference = Answers.of(answers), torch.tensor([[0.0, -1e7], [0, 1e7], [1, 0]]).double()
        plain, small = exact.mixed(difference, answers).shares
        self.assertTrue(1e-11 < plain < 1e-9 and 1e-9 < small < 1e-7)
        self.assertEqual(exact.mixed(torch.eye(3).double()[:, :2], answers).shares, (0, 0))


class TestRepeats(unittest.TestCase):
    def repeated(self, errors):
        """Queries that occur twice each, and their answers with errors `[5000]` times 0.03."""
        queries = (torch.arange(5000) % 2500)[:, None].double()
        return queries, (VALUES[:2500].repeat(2) + 0.03 * errors)[:, None]

    def test_repeated_questions_show_the_noise(self):
        queries, answers = self.repeated(VALUES / 3)
        known = Answers.of(answers, None, queries)
        self.assertAlmostEqual(known.shares[0] * float(answers.std(correction=0)), 0.03, delta=0.001)
        self.assertRegex(known.name, r"^noise:0\.0(29|3|31), as 2,500 repeated questions show$")
        self.assertTrue(known.is_stated)
        self.assertGreater(known.allowed(5000)[0], Answers.of(answers, "noise:0.03").allowed(5000)[0])

    def test_equal_answers_to_repeated_questions_are_exact(self):
        queries, answers = self.repeated(0 * VALUES)
        self.assertTrue(Answers.of(answers, None, queries).is_exact)
        self.assertEqual(Answers.of(answers.float().double(), None, queries).name, "float32")

    def test_what_is_given_counts_more(self):
        queries, answers = self.repeated(VALUES)
        self.assertEqual(Answers.of(answers, "float32", queries).name, "float32")


class TestStated(unittest.TestCase):
    def test_more_digits_contradict_a_precision(self):
        for given, answers in (("decimals:3", VALUES.round(decimals=3)), ("float32", VALUES.float().double()), ("float16", VALUES.half())):
            self.assertFalse(finer(answers.double()[:, None], given))
            self.assertTrue(finer(VALUES[:, None], given))
        self.assertFalse(finer(VALUES.round(decimals=3).float().double()[:, None], "decimals:3"))
        self.assertFalse(finer(VALUES[:, None], "noise:0.1") or finer(VALUES[:, None], "float64"))

    def test_the_default_leaves_the_name_of_the_run_as_it_is(self):
        self.assertEqual(str(ExtractionHparams()), "Hparams()")
        self.assertEqual(str(ExtractionHparams(answers="noise:1e-3")), str(ExtractionHparams(answers="noise:0.001")))
        self.assertEqual(str(ExtractionHparams(answers="decimals:04")), "Hparams(answers='decimals:4')")

    def test_other_texts_are_refused_with_what_is_valid(self):
        for text in (
            "",
            "float",
            "float32:1",
            "decimals",
            "decimals:-1",
            "decimals:1.5",
            "noise:0",
            "noise:-1",
            "noise:nan",
            "noise:1e999",
            "4",
        ):
            with self.subTest(text), self.assertRaisesRegex(ConfigError, "^--answers: .* is not a precision; valid: float64, float32"):
                ExtractionHparams(answers=text)


if __name__ == "__main__":
    unittest.main()
