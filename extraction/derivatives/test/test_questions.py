"""Counting, budgets and coordinates of questions."""

import unittest

import torch

from extraction.derivatives.questions import BudgetSpent, Questions
from extraction.derivatives.test.known import normal


class TestQuestions(unittest.TestCase):
    def test_a_budget_is_never_exceeded_and_says_what_is_spent(self):
        seen = []
        asked = Questions(lambda x: seen.append(len(x)) or x, 2, budget=10)
        asked(normal(6, 2))
        with self.assertRaisesRegex(BudgetSpent, "5 more queries exceed the budget of 10, of which 6 are spent"):
            asked(normal(5, 2))
        asked(normal(4, 2))
        self.assertEqual((sum(seen), asked.count.asked), (10, 10))

    def test_coordinates_share_the_count_and_the_budget(self):
        asked = Questions(lambda x: x.square(), 3, budget=7)
        origin, basis, points = normal(3), normal(3, 2, seed=1), normal(4, 2, seed=2)
        inner = asked.within(origin, basis).through(lambda y: y - 1, 2)
        torch.testing.assert_close(inner(points), torch.stack([origin + basis @ (point - 1) for point in points]).square())
        self.assertEqual(asked.count.asked, 4)
        with self.assertRaises(BudgetSpent):
            inner(points)
