"""Averages against exact arithmetic."""

import math
import random
import statistics

from foundations.averages import mean_and_deviation
from testing.test_case import TestCase


class TestAverages(TestCase):
    def test_mean_and_deviation_equal_those_of_exact_arithmetic(self):
        draw = random.Random(0)
        for count in (2, 3, 10):
            values = [0.97 + 1e-6 * draw.random() for _ in range(count)]
            mean, deviation = mean_and_deviation(values)
            self.assertEqual(mean, statistics.fmean(values))
            self.assertAlmostEqual(deviation / statistics.stdev(values), 1, delta=1e-9)

    def test_the_deviation_of_a_single_value_is_zero(self):
        self.assertEqual(mean_and_deviation([0.3]), (0.3, 0.0))

    def test_values_that_are_not_finite_raise_no_error(self):
        self.assertTrue(all(map(math.isnan, mean_and_deviation([math.nan, 1.0]))))
        self.assertEqual(mean_and_deviation([math.inf, 1.0])[0], math.inf)
        self.assertEqual(mean_and_deviation([1e200, -1e200]), (0.0, math.inf))
