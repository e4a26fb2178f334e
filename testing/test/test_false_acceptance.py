"""The trials are what their kinds say, and a false acceptance is noticed."""

import unittest

import torch

from testing.benchmarks.false_acceptance import KINDS, draw, is_false

NAMES = [*KINDS]
EXACT = ["depth", "activation", "kinks", "narrow", "few", "scales", "weak", "columns", "correlated", "constant", "right"]


def trial(kind: str, turn: int = 0):
    return draw(NAMES.index(kind) + turn * len(NAMES))


class TrialTest(unittest.TestCase):
    def test_the_teacher_gives_the_answers(self):
        for kind in EXACT:
            for turn in range(3):
                with self.subTest(kind=kind, turn=turn):
                    drawn = trial(kind, turn)
                    self.assertEqual(drawn.kind, kind)
                    answers = drawn.teacher.pre_activations(drawn.queries)
                    error = ((answers - drawn.answers) / drawn.answers.abs().amax(0)).abs().max()
                    self.assertLess(float(error), 1e-9)

    def test_a_neuron_feeds_the_weak_output_alone(self):
        drawn = trial("weak")
        size = drawn.answers.std(0)
        self.assertLess(float(size[0] / size[1:].min()), 1e-4)
        self.assertTrue((drawn.teacher.vectors[-1][1:, 0] == 0).all())

    def test_probabilities_are_those_of_the_teacher(self):
        kinds = set()
        for turn in range(8):
            drawn = trial("links", turn)
            logits = drawn.teacher.pre_activations(drawn.queries)
            answers = {"softmax": logits.softmax(1), "log_softmax": logits.log_softmax(1), "sigmoid": logits.sigmoid()}
            kinds |= {name for name, values in answers.items() if float((values - drawn.answers).abs().max()) < 1e-3}
        self.assertEqual(kinds, {"softmax", "log_softmax", "sigmoid"})

    def test_a_number_determines_its_trial(self):
        self.assertTrue(all(torch.equal(draw(number).answers, draw(number).answers) for number in range(len(NAMES))))


class FalseTest(unittest.TestCase):
    def test_false_in_either_sense(self):
        row = {"accepted": True, "identified": False, "to precision": True, "within": False}
        self.assertTrue(is_false(row))
        self.assertFalse(is_false(row | {"identified": True}))
        self.assertTrue(is_false(row | {"accepted": False}))
        self.assertFalse(is_false(row | {"accepted": False, "within": True}))
        self.assertFalse(is_false(row | {"accepted": False, "to precision": False}))


if __name__ == "__main__":
    unittest.main()
