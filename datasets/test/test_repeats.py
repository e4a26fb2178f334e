"""Repeated queries: their groups, the rows that are held out, and the noise that they show."""

import unittest

import torch

from datasets import repeats

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def errors(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class TestGroups(unittest.TestCase):
    def test_distinct_queries_are_numbered_as_they_occur(self):
        self.assertEqual(repeats.groups(X[[5, 2, 5, 9, 2, 1]]).tolist(), [0, 1, 0, 2, 1, 3])
        self.assertEqual(repeats.groups(X).tolist(), list(range(40)))

    def test_without_repetitions_every_tenth_row_is_held_out(self):
        self.assertEqual(torch.nonzero(repeats.held_out(X, 10))[:, 0].tolist(), [9, 19, 29, 39])

    def test_no_query_is_held_out_and_for_training(self):
        x = X[torch.randint(40, (500,), generator=torch.Generator().manual_seed(2))]
        held_out = repeats.held_out(x, 10)
        both = {tuple(row) for row in x[held_out].tolist()} & {tuple(row) for row in x[~held_out].tolist()}
        self.assertEqual((both, len(torch.unique(x[held_out], dim=0))), (set(), 4))

    def test_one_of_few_distinct_queries_is_held_out(self):
        self.assertEqual(repeats.held_out(X[[0, 1, 2, 0, 1, 2, 2]], 10).tolist(), [False, False, True, False, False, True, True])


class TestNoise(unittest.TestCase):
    def test_repeated_queries_show_the_noise_of_each_output(self):
        number = torch.arange(3000) % 1000
        x, y = errors(1000, 3)[number], errors(1000, 2)[number]
        noise, count = repeats.noise(x, y + errors(3000, 2) * torch.tensor([0.1, 3.0]))
        self.assertEqual(count, 2000)
        torch.testing.assert_close(noise / torch.tensor([0.1, 3.0]), torch.ones(2).double(), rtol=0.05, atol=0)

    def test_equal_answers_show_none_and_a_contradiction_is_not_noise(self):
        number = torch.arange(300) % 100
        x, y = errors(100, 3)[number], errors(100, 1)[number]
        y[7] += 5
        self.assertEqual(repeats.noise(x, y)[0].tolist(), [0.0])

    def test_few_repetitions_show_nothing(self):
        self.assertIsNone(repeats.noise(torch.cat([X, X[:9]]), errors(49, 1)))


if __name__ == "__main__":
    unittest.main()
