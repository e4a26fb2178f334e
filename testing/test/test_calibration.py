"""Error bars hold on a few small networks, and the benchmark notices where they do not."""

import dataclasses
import unittest

import torch

from testing.benchmarks.calibration import PRECISIONS, Outcome, Trial, holds, run, shares, table


class CalibrationTest(unittest.TestCase):
    def test_true_weights_are_within_one_and_two_standard_errors_as_often_as_they_should_be(self):
        for precision in PRECISIONS:
            outcomes = [run(Trial(precision, act_fun, (2, 3, 1), number)) for act_fun in ("tanh", "relu") for number in range(5)]
            count, one, two, largest, bound = shares(outcomes)
            with self.subTest(precision):
                self.assertEqual(count, 5 * 2 * 13)
                self.assertGreater(one, 0.58)
                self.assertLess(one, 0.92)
                self.assertGreater(two, 0.91)
                self.assertLess(largest, 5)
                self.assertGreaterEqual(bound, 0.85)


class TableTest(unittest.TestCase):
    def outcomes(self, size: float) -> list[Outcome]:
        values = (size * torch.randn(2000, generator=torch.Generator().manual_seed(0))).tolist()
        return [Outcome(Trial(precision, "tanh", (2, 3, 1), 0), values, True) for precision in PRECISIONS]

    def test_gaussian_deviations_hold(self):
        outcomes = self.outcomes(1.0)
        _, one, two, _, bound = shares(outcomes)
        self.assertAlmostEqual(one, 0.68, delta=0.02)
        self.assertAlmostEqual(two, 0.954, delta=0.01)
        self.assertEqual(bound, 1)
        self.assertTrue(holds(outcomes))
        self.assertEqual(len(table(outcomes).splitlines()), 1 + 2 * len(PRECISIONS))

    def test_error_bars_that_are_too_small_do_not_hold(self):
        self.assertFalse(holds(self.outcomes(1.2)))
        self.assertFalse(holds([dataclasses.replace(each, is_within_bound=False) for each in self.outcomes(1.0)]))


if __name__ == "__main__":
    unittest.main()
