"""The logic of a race, on students and networks that are only pretended."""

import math
import unittest

from extraction.hypothesis import Hypothesis, hypotheses
from extraction.racing.race import Entry, Outcome, Rung, Standing, Track, best_of_each_depth, is_needless, near_best, race, ranking

RUNGS = (Rung(4, 1, 2, 100, 10), Rung(4, 1, 1, 200, 20), Rung(6, 2, 1))
ALL = hypotheses((1, 2, 3), ("relu", "tanh", "gelu", "silu"))
TRUE = Hypothesis(2, "gelu")


class Pretended:
    """Students with losses that a function gives, and networks that a function accepts."""

    def __init__(self, loss, accepts=lambda entry: True, crowded=lambda entry: False, fits=lambda entry: True):
        self.loss, self.accepts, self.crowded = loss, accepts, crowded
        self.trained, self.recovered, self.lines, self.left_out = [], [], [], fits

    second = None  # the loss of the second best student, if it is another one

    def train(self, entry):
        self.trained.append(entry)
        return Standing(entry, self.loss(entry), self.second or self.loss(entry))

    def recover(self, entry):
        self.recovered.append(entry)
        return Outcome(
            entry, self.accepts(entry), 1e-30 if self.is_exact and self.accepts(entry) else self.loss(entry), self.crowded(entry)
        )

    def race(self, among=ALL, exact=1e-16):
        self.is_exact = exact < 1e-8
        track = Track(RUNGS, 12, exact, 1e-3, self.train, self.recover, self.lines.append, self.left_out)
        return race(track, among)


def steady(entry):
    """The true hypothesis loses less with every rung; the others stall, those with more layers lower."""
    if entry.hypothesis == TRUE:
        return {0: 2e-4, 1: 1e-5, 2: 1e-7}[RUNGS.index(entry.rung)]
    return 1e-3 / entry.hypothesis.depth


class TestRace(unittest.TestCase):
    def test_the_right_hypothesis_wins_and_the_others_get_little(self):
        pretended = Pretended(steady)
        outcome = pretended.race()
        self.assertEqual((outcome.entry.hypothesis, outcome.accepted), (TRUE, True))
        self.assertEqual([len([entry for entry in pretended.trained if entry.rung is rung]) for rung in RUNGS], [12, 6, 3])
        self.assertEqual(len(pretended.recovered), 1)
        self.assertEqual([entry.width for entry in pretended.trained if entry.rung is RUNGS[-1]], [24, 24, 24])

    def test_it_is_deterministic(self):
        one, other = Pretended(steady), Pretended(steady)
        self.assertEqual(one.race(), other.race())
        self.assertEqual((one.trained, one.lines), (other.trained, other.lines))

    def test_students_that_are_exact_end_the_race_at_once_and_deeper_ones_are_not_trained(self):
        pretended = Pretended(lambda entry: 1e-20 if entry.hypothesis == Hypothesis(1, "tanh") else 1e-4)
        outcome = pretended.race()
        self.assertEqual(outcome.entry, Entry(Hypothesis(1, "tanh"), RUNGS[0], 12))
        self.assertEqual([entry.hypothesis.act_fun for entry in pretended.trained], ["relu", "tanh"])

    def test_what_was_left_out_is_tried_where_the_promising_network_is_refused(self):
        def loss(entry):
            return 1e-12 if entry.hypothesis == Hypothesis(1, "tanh") else steady(entry)

        pretended = Pretended(loss, accepts=lambda entry: entry.hypothesis == TRUE)
        self.assertEqual(pretended.race().entry.hypothesis, TRUE)

    def test_of_equally_good_hypotheses_the_one_with_fewer_layers_is_tried_first(self):
        standings = [Standing(Entry(Hypothesis(depth, "silu"), RUNGS[0], 12), loss) for depth, loss in ((3, 1e-7), (2, 2e-7), (1, 1e-3))]
        self.assertEqual([standing.hypothesis.depth for standing in ranking(standings)], [2, 3, 1])

    def test_all_exact_losses_are_equally_good(self):
        standings = [Standing(Entry(Hypothesis(depth, "silu"), RUNGS[0], 12), loss) for depth, loss in ((2, 1e-28), (1, 1e-21))]
        self.assertEqual([standing.hypothesis.depth for standing in ranking(standings, 1e-16)], [1, 2])

    def test_students_that_diverged_come_last(self):
        standings = [Standing(Entry(Hypothesis(1, "relu"), RUNGS[0], 12), loss) for loss in (math.nan, math.inf, 1.0)]
        self.assertEqual([standing.loss for standing in ranking(standings)][0], 1.0)

    def test_a_network_that_is_refused_does_not_end_the_race(self):
        pretended = Pretended(
            lambda entry: 1e-20 if entry.hypothesis.depth > 1 else 1e-2, accepts=lambda entry: entry.hypothesis == Hypothesis(3, "relu")
        )
        self.assertEqual(pretended.race([Hypothesis(1, "relu"), Hypothesis(2, "relu"), Hypothesis(3, "relu")]).entry.hypothesis.depth, 3)

    def test_a_hypothesis_goes_on_that_was_luckier_in_the_rung_before(self):
        pretended = Pretended(lambda entry: 1e-10 if entry.rung is RUNGS[0] and entry.hypothesis == TRUE else 1e-6)
        pretended.second = 1e-3
        self.assertEqual(pretended.race().entry.rung, RUNGS[-1])
        self.assertEqual(pretended.race().entry.hypothesis, TRUE)

    def test_students_are_ready_where_the_best_two_are_near_the_solution(self):
        entry = Entry(TRUE, RUNGS[0], 12)
        cases = {
            (1e-20, 1e-20): True,
            (1e-20, 1.0): True,
            (1e-9, 1e-6): True,
            (1e-9, 1e-3): False,
            (1e-7, 1e-7): False,
            (math.nan, math.inf): False,
        }
        for losses, expected in cases.items():
            self.assertIs(Standing(entry, *losses).is_ready, expected, losses)

    def test_a_swarm_finds_deep_networks_and_eliminates_no_hypothesis(self):
        swarm = Rung(100, 1 / 3, 1, 100, 10, is_swarm=True)
        for solved in (True, False):
            pretended = Pretended(lambda entry, solved=solved: (1e-20 if solved else 0.5) if entry.rung is swarm else steady(entry))
            pretended.second = 1.0
            pretended.is_exact = True
            track = Track((RUNGS[0], swarm, *RUNGS[1:]), 12, 1e-16, 1e-3, pretended.train, pretended.recover)
            outcome = race(track, ALL)
            swarms = [entry for entry in pretended.trained if entry.rung is swarm]
            with self.subTest(solved=solved):
                self.assertEqual({(entry.hypothesis.depth > 1, entry.width) for entry in swarms}, {(True, 4)})
                self.assertIs(outcome.entry.rung is swarm, solved)
                self.assertEqual(outcome.entry.hypothesis.depth, 2)

    def test_kindred_hypotheses_go_on_together(self):
        loss = {"relu": 1e-3, "leaky_relu": 5e-3, "tanh": 2e-3, "gelu": 4e-3}
        standings = [Standing(Entry(Hypothesis(2, name), RUNGS[0], 12), value) for name, value in loss.items()]
        self.assertEqual([hypothesis.act_fun for hypothesis in best_of_each_depth(standings, 1)], ["relu", "leaky_relu"])
        far = [
            Standing(standing.entry, 20 * standing.loss if standing.hypothesis.act_fun == "leaky_relu" else standing.loss)
            for standing in standings
        ]
        self.assertEqual([hypothesis.act_fun for hypothesis in best_of_each_depth(far, 1)], ["relu"])

    def test_losses_under_different_links_are_not_compared(self):
        losses = {
            Hypothesis(1, "tanh"): 1e-5,
            Hypothesis(1, "g"): 1e-4,
            Hypothesis(1, "tanh", "sigmoid"): 1e-2,
            Hypothesis(1, "g", "sigmoid"): 1,
        }
        standings = [Standing(Entry(hypothesis, RUNGS[0], 12), loss) for hypothesis, loss in losses.items()]
        self.assertEqual(best_of_each_depth(standings, 1), [Hypothesis(1, "tanh"), Hypothesis(1, "tanh", "sigmoid")])

    def test_a_link_that_is_clearly_behind_is_left_out(self):
        for loss, expected in ((2e-5, 3), (4e-5, 2)):
            pairs = (Hypothesis(1, "tanh"), loss), (Hypothesis(1, "g", "sigmoid"), 1e-6), (Hypothesis(2, "g", "sigmoid"), 5e-4)
            standings = [Standing(Entry(hypothesis, RUNGS[0], 12), value) for hypothesis, value in pairs]
            self.assertEqual(near_best(standings, 1e-6), standings[-expected:])

    def test_a_hypothesis_that_leads_its_depth_by_far_makes_more_layers_needless(self):
        def standings(*losses):
            return [Standing(Entry(Hypothesis(1, name), RUNGS[0], 12), loss) for name, loss in zip("abc", losses, strict=True)]

        deeper = Hypothesis(2, "tanh")
        for losses, expected in (
            ((1e-10, 1e-9, 1.0), True),
            ((2e-8, 1e-3, 1.0), True),
            ((1e-5, 0.1, 1.0), False),
            ((2e-8, 1e-6, 1.0), False),
        ):
            with self.subTest(losses):
                self.assertIs(is_needless(deeper, standings(*losses)), expected)
        self.assertIs(is_needless(Hypothesis(1, "relu"), standings(1e-12, 1.0, 1.0)), False)

    def test_with_inexact_answers_the_nearest_accepted_network_counts_and_rivals_are_named(self):
        floor = {"tanh": 1.0e-6, "gelu": 1.1e-6, "silu": 3e-6, "relu": 1e-4}
        pretended = Pretended(lambda entry: floor[entry.hypothesis.act_fun])
        among = hypotheses((1,), ("relu", "gelu", "tanh", "silu"))
        outcome = pretended.race(among, exact=1e-5)
        self.assertEqual((outcome.entry.hypothesis, outcome.accepted), (Hypothesis(1, "tanh"), True))
        self.assertEqual(outcome.rivals, (Hypothesis(1, "gelu"),))
        self.assertEqual(len({entry.rung for entry in pretended.trained}), len(RUNGS))  # no network is recovered before

    def test_exact_answers_leave_no_rivals(self):
        pretended = Pretended(lambda entry: 1e-20)
        self.assertEqual(pretended.race().rivals, ())
        self.assertEqual((len(pretended.trained), len(pretended.recovered)), (1, 1))

    def test_students_that_are_too_narrow_are_made_wider(self):
        pretended = Pretended(
            lambda entry: steady(entry) if entry.width >= 24 * entry.rung.factor else 0.1, accepts=lambda entry: entry.width == 48
        )
        outcome = pretended.race()
        self.assertEqual((outcome.entry.width, outcome.accepted), (48, True))
        self.assertIn("trying 24 neurons in each layer", "\n".join(pretended.lines))

    def test_crowded_students_are_made_wider_although_they_imitate_the_network(self):
        pretended = Pretended(steady, accepts=lambda entry: entry.width == 48, crowded=lambda entry: True)
        self.assertEqual(pretended.race().entry.width, 48)

    def test_without_an_accepted_network_the_nearest_is_the_result(self):
        pretended = Pretended(steady, accepts=lambda entry: False)
        outcome = pretended.race()
        self.assertEqual((outcome.entry.hypothesis, outcome.accepted, outcome.loss), (TRUE, False, 1e-7))
        self.assertEqual({entry.width for entry in pretended.trained}, {12, 24})  # the students imitate it, and are not crowded

    def test_students_are_left_out_that_have_more_unknowns_than_the_answers_have_numbers(self):
        pretended = Pretended(steady, fits=lambda entry: entry.hypothesis.depth == 1 and entry.width < 48)
        pretended.race()
        self.assertEqual({entry.hypothesis.depth for entry in pretended.trained}, {1})
        self.assertIsNone(Pretended(steady, fits=lambda entry: False).race())

    def test_the_table_says_rung_hypothesis_and_loss(self):
        pretended = Pretended(steady)
        pretended.race()
        self.assertIn("Rung 1 of 3: 4 students with 12 neurons in each layer, 100 steps", pretended.lines)
        self.assertIn("  2 hidden layers of gelu          held-out loss 2.0e-04", pretended.lines)


if __name__ == "__main__":
    unittest.main()
