"""Tables and pictures, from logs and masks that are written by hand."""

from __future__ import annotations

import json
import os
from unittest import mock

import numpy as np
import torch

from foundations import paths
from foundations.errors import ConfigError
from foundations.step import Step
from lottery import plotting, report, runner
from lottery.desc import LotteryDesc
from lottery.interpolation import Interpolation
from platforms.platform import get_platform
from pruning.mask import Mask
from testing.test_case import TestCase
from training.metric_logger import MetricLogger
from training.plotting import figure

DESC = LotteryDesc.default_for("digits_lenet_4")
BRANCH = "lottery_branch_{}_00000000000000000000000000000000"


class ReportTestCase(TestCase):
    def finished(self, location: str, left: int, **metrics: list[float]) -> None:
        """Writes what a run of 100 weights leaves that is evaluated at steps 10, 20, ..."""
        logger = MetricLogger()
        for name, values in metrics.items():
            for place, value in enumerate(values, start=1):
                logger.add(f"test_{name}", Step(10 * place, 5), value)
        logger.save(location)
        Mask({"fc.weight": torch.arange(100) < left}).save(location)
        get_platform().write(os.path.join(location, "model_ep6_it0.pth"), "weights")

    def level(self, seed: int, level: int, accuracy: float, experiment: str = "main", arguments: dict | None = None) -> str:
        """Writes a finished level of the tickets or of a branch."""
        location = DESC.run_path(self.root, seed, level, experiment)
        self.finished(location, 100 // 2**level, loss=[2.0], accuracy=[accuracy])
        get_platform().write(paths.hparams_dict(location), json.dumps({"seed": seed, "branch_hparams": arguments or {}}))
        return location


class TestOutcome(ReportTestCase):
    def test_steps_count_to_the_first_best_value(self):
        self.finished(self.root, 40, loss=[2.0, 1.0, 0.5, 0.7], accuracy=[0.1, 0.8, 0.8, 0.7])
        self.assertEqual(report.read(2, self.root), report.Outcome(2, 40, 100, "accuracy", 0.7, 0.8, 10))

    def test_without_classes_the_metric_is_the_loss(self):
        self.finished(self.root, 40, loss=[2.0, 1.0, 0.5, 0.7])
        self.assertEqual(report.read(2, self.root), report.Outcome(2, 40, 100, "loss", 0.7, 0.5, 20))

    def test_nan_is_never_the_best_value(self):
        self.finished(self.root, 40, loss=[2.0, 1.0, float("nan")])
        outcome = report.read(2, self.root)
        self.assertEqual((outcome.best, outcome.steps, str(outcome.final)), (1.0, 10, "nan"))
        self.finished(self.root, 40, loss=[float("nan")] * 3)
        outcome = report.read(2, self.root)
        self.assertEqual((str(outcome.best), outcome.steps), ("nan", 20))

    def test_the_table_has_a_line_for_each_level(self):
        outcomes = [report.Outcome(0, 1000, 1000, "accuracy", 0.9, 0.95, 120), report.Outcome(1, 800, 1000, "accuracy", 0.5, 0.5, 7)]
        lines = [line.split() for line in report.table(outcomes).splitlines()]
        self.assertEqual(lines[0], ["level", "weights", "left", "test", "accuracy", "best", "best", "at"])
        self.assertEqual(lines[1], ["0", "1,000", "100.00%", "90.00%", "95.00%", "120it"])
        self.assertEqual(lines[2], ["1", "800", "80.00%", "50.00%", "50.00%", "7it"])


class TestExperiments(ReportTestCase):
    def test_levels_of_all_seeds_and_branches_are_found(self):
        for seed, accuracy in ((1, 0.9), (-1, 0.8)):
            self.level(seed, 0, accuracy)
            self.level(seed, 1, accuracy - 0.1)
        self.level(1, 1, 0.3, BRANCH.format("randomly_reinitialize"))
        found = report.experiments(DESC)
        self.assertEqual(list(found), ["tickets", "randomly_reinitialize"])
        self.assertEqual(sorted(each.final for each in found["tickets"][0]), [0.8, 0.9])
        self.assertEqual({level: [each.final for each in group] for level, group in found["randomly_reinitialize"].items()}, {1: [0.3]})

    def test_unfinished_levels_are_ignored(self):
        self.level(1, 0, 0.9)
        os.remove(paths.logger(self.level(1, 1, 0.9)))
        self.assertEqual(list(report.experiments(DESC)["tickets"]), [0])

    def test_labels_of_branches_list_the_differing_arguments(self):
        self.level(1, 0, 0.9)
        for md5, strategy in (("0", "even"), ("1", "global")):
            self.level(1, 0, 0.5, f"lottery_branch_randomly_prune_{md5 * 32}", {"seed": None, "strategy": strategy})
        for md5, lr in (("2", 0.1), ("3", 0.2)):
            self.level(1, 0, 0.5, f"lottery_branch_retrain_{md5 * 32}", {"retrain_t": {"lr": lr, "momentum": 0.0}})
        names = ["tickets", "randomly_prune strategy=even", "randomly_prune strategy=global", "retrain lr=0.1", "retrain lr=0.2"]
        self.assertEqual(list(report.experiments(DESC)), names)

    def test_a_branch_with_damaged_arguments_is_refused(self):
        self.level(1, 0, 0.9)
        path = paths.hparams_dict(self.level(1, 0, 0.5, BRANCH.format("randomly_prune")))
        for content in ("[]", "{}", "3", '{"branch_hparams": null}', '{"branch_hparams": ["seed"]}'):
            get_platform().write(path, content)
            with self.assertRaisesRegex(ConfigError, f"^{path} is damaged"):
                report.experiments(DESC)

    def test_the_comparison_has_means_and_deviations(self):
        for seed, accuracy in ((1, 0.9), (2, 0.8), (3, 0.7)):
            self.level(seed, 0, accuracy)
        self.level(1, 0, 0.25, BRANCH.format("randomly_prune"))
        self.level(1, 1, 0.5)
        lines = [line.split() for line in report.comparison(report.experiments(DESC)).splitlines()]
        deviation = np.std([90, 80, 70], ddof=1)
        self.assertEqual(lines[2], ["0", "100.00%", "80.00", "±", f"{deviation:.2f}%", "(3)", "25.00%", "(1)"])
        self.assertEqual(lines[3], ["1", "50.00%", "50.00%", "(1)", "-"])

    def test_a_single_run_has_no_comparison(self):
        self.level(1, 0, 0.9)
        runner.compare(DESC, 1, verbose=False)
        self.assertFalse(get_platform().exists(paths.comparison(DESC.seed_path(self.root, 1))))
        self.level(2, 0, 0.9)
        runner.compare(DESC, 1, verbose=False)
        self.assertTrue(get_platform().exists(paths.comparison(DESC.seed_path(self.root, 1))))


class TestPictures(ReportTestCase):
    def drawn(self, draw, *arguments):
        """The axes of what a function draws."""
        with mock.patch.object(plotting, "save") as save:
            draw(*arguments, "path.png")
        self.assertEqual(save.call_args.args[1], "path.png")
        return save.call_args.args[0].axes

    def test_the_comparison_shows_mean_and_standard_deviation(self):
        seeds = [report.Outcome(0, 100, 100, "accuracy", value, value, 30) for value in (0.7, 0.9)]
        left, right = self.drawn(plotting.comparison, {"tickets": {0: seeds, 1: [report.Outcome(1, 50, 100, "accuracy", 0.6, 0.6, 10)]}})
        self.assertEqual(left.lines[0].get_xydata().tolist(), [[100, 80], [50, 60]])
        (band,) = left.collections
        deviation = np.std([70, 90], ddof=1)
        np.testing.assert_allclose(band.get_datalim(left.transData).intervaly, [60, 80 + deviation])
        self.assertEqual(sorted(left.lines[1].get_ydata()), [60, 70, 90])
        self.assertEqual(right.lines[0].get_ydata().tolist(), [30, 10])
        self.assertEqual([text.get_text() for text in left.figure.legends[0].get_texts()], ["tickets (2 seeds)"])

    def test_barriers_are_drawn_against_weights_and_errors_along_the_line(self):
        levels = {level: Interpolation([0, 0.5, 1], [0, kept, 0], [1, 2 * kept, 1], kept, 100) for level, kept in ((0, 100), (3, 50))}
        left, right = self.drawn(plotting.barriers, levels)
        self.assertEqual([list(drawn.get_ydata()) for drawn in left.lines], [[1, 200, 1], [1, 100, 1]])
        self.assertEqual([drawn.get_xydata().tolist() for drawn in right.lines], [[[100, 100], [50, 50]], [[100, 199], [50, 99]]])

    def test_weights_run_from_many_to_few(self):
        outcomes = [report.Outcome(level, left, 100, "loss", 0.1 * left, 0.05 * left, 5) for level, left in enumerate((100, 50, 25))]
        left, right = self.drawn(plotting.tickets, outcomes)
        for axis in (left, right):
            self.assertGreater(*axis.get_xlim())
        self.assertEqual(left.lines[0].get_xydata().tolist(), [[100, 10], [50, 5], [25, 2.5]])
        self.assertEqual((left.get_ylabel(), left.get_yscale()), ("test loss", "log"))

    def test_every_axis_of_weights_has_labels(self):
        labels = {(100, 80.4, 64.72): ["100", "80.4", "64.7"], (64.72, 64.7, 51): ["64.7", "51"], (100, 60, 20): ["100", "50", "20"]}
        for weights, expected in labels.items():
            _, (axis,) = figure()
            plotting.weights_axis(axis, weights)
            self.assertEqual([label.get_text() for label in axis.get_xticklabels()], expected)
