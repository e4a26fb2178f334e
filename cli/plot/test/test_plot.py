"""Pictures of runs, read off the figures before they are written."""

from __future__ import annotations

import os
from unittest import mock

import numpy as np

from cli.plot.runner import PlotArgs
from foundations import paths
from testing import run_folders
from testing.test_case import TestCase

ACCURACIES = {0.1: (0.8, 0.9), 0.3: (0.5, 0.6)}  # of two seeds, by learning rate


class PlotTestCase(TestCase):
    def draw(self, *arguments: str):
        """The axes of the picture that a command would write, and what it prints."""
        with mock.patch("training.plotting.save") as save, mock.patch("lottery.plotting.save", save):
            status, out, err = self.command("plot", *arguments)
        self.assertEqual((status, err), (0, ""))
        return save.call_args[0][0].axes, out

    def lines(self, axis) -> dict[str, np.ndarray]:
        """The points of each line that has a label."""
        return {line.get_label(): np.stack(line.get_data(), 1) for line in axis.lines if not line.get_label().startswith("_")}

    def check(self, found: np.ndarray, expected: list[tuple[float, float]]) -> None:
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    def refuse(self, *arguments: str) -> str:
        status, out, err = self.command("plot", *arguments)
        self.assertEqual((status, out, err.count("\n")), (2, "", 1), err)
        return err


class TestCurves(PlotTestCase):
    def setUp(self):
        super().setUp()
        for lr, accuracies in ACCURACIES.items():
            for seed, accuracy in enumerate(accuracies):
                run_folders.train_run(self.root, run_folders.training(lr), seed, accuracy)

    def test_a_line_is_the_mean_over_the_seeds_in_a_band_of_their_standard_deviation(self):
        (axis,), out = self.draw("--metric=test_accuracy")
        lines = self.lines(axis)
        self.assertEqual([*lines], ["lr=0.1 (2 seeds)", "lr=0.3 (2 seeds)"])
        for (lr, accuracies), line, band in zip(ACCURACIES.items(), lines.values(), axis.collections, strict=True):
            with self.subTest(lr=lr):
                self.check(line, [(0, 10), (240, 50 * np.mean(accuracies)), (480, 100 * np.mean(accuracies))])
                last = [y for x, y in band.get_paths()[0].vertices if x == 480]
                middle, half = 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1)
                np.testing.assert_allclose((min(last), max(last)), (middle - half, middle + half))
        self.assertEqual((axis.get_xlabel(), axis.get_ylabel(), axis.get_yscale()), ("iteration", "test accuracy (%)", "linear"))
        self.assertEqual(out, f"Picture: {os.path.abspath('test_accuracy_over_iteration.png')}\n")

    def test_every_metric_has_a_panel_and_epochs_are_rescaled_iterations(self):
        axes, _ = self.draw("--metric=test_accuracy,test_loss", "--x=epoch", "--where=lr=0.1 and seed=0")
        for axis, values in zip(axes, ((10, 40, 80), (0.9, 0.6, 0.2)), strict=True):
            ((label, line),) = self.lines(axis).items()
            self.check(line, [*zip((0, 20, 40), values, strict=True)])
            self.assertRegex(label, "^train [0-9a-f]{6}$")

    def test_losses_on_a_logarithmic_axis_have_geometric_means(self):
        (axis,), _ = self.draw("--metric=test_loss", "--by=lr", "--log=y", "--where=lr=0.3")
        self.check(self.lines(axis)["lr=0.3 (2 seeds)"], [(0, 0.9), (240, np.sqrt(0.75 * 0.7)), (480, np.sqrt(0.5 * 0.4))])
        self.assertEqual(axis.get_yscale(), "log")

    def test_last_values_are_drawn_against_a_hyperparameter(self):
        (axis,), _ = self.draw("--metric=test_accuracy", "--x=lr")
        self.check(self.lines(axis)["train (2 seeds)"], [(0.1, 85), (0.3, 55)])
        self.assertEqual([label.get_text() for label in axis.get_xticklabels()], ["0.1", "0.3"])

    def test_a_hyperparameter_of_texts_has_one_x_position_for_each_value(self):
        run_folders.train_run(self.root, run_folders.training(0.1, "tanh"), 0, 0.7)
        (axis,), _ = self.draw("--metric=test_accuracy", "--x=act_fun", "--where=lr=0.1")
        self.check(self.lines(axis)["train (2 seeds)"], [(0, 85), (1, 70)])
        self.assertEqual([label.get_text() for label in axis.get_xticklabels()], ["relu", "tanh"])
        half = 100 * np.std(ACCURACIES[0.1], ddof=1)
        np.testing.assert_allclose(axis.collections[0].get_segments(), [[(0, 85 - half), (0, 85 + half)], [(1, 70), (1, 70)]])

    def test_notes_name_differences_within_a_line_and_count_runs_without_a_log(self):
        desc = run_folders.training(0.1, "tanh")
        run_folders.record(desc.run_path(self.root, 0), desc, 0)
        run_folders.write(paths.logger(run_folders.train_run(self.root, desc, 1)), "test_accuracy$0$0.1")
        _, out = self.draw("--metric=test_accuracy", "--by=act_fun")
        self.assertRegex(out, "Note: a line combines runs that differ in lr .*\nNote: 2 of the runs are not drawn: .*\nPicture: ")

    def test_runs_are_selected_by_hash_order_and_limit(self):
        digits = run_folders.training(0.3).hashname.removeprefix("train_")
        for arguments in ((digits[:8],), ("--sort=test_accuracy", "--limit=1")):
            (axis,), _ = self.draw(*arguments)
            self.assertEqual([*self.lines(axis)], [f"train {digits[:6]} (2 seeds)"])

    def test_the_same_picture_has_the_same_bytes_in_both_formats(self):
        for name in ("a", "b"):
            status, out, _ = self.command("plot", f"--output={self.root}/{name}.pdf", "--format=png,pdf")
            self.assertEqual((status, out), (0, f"Picture: {self.root}/{name}.png\nPicture: {self.root}/{name}.pdf\n"))
        for form, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
            with open(f"{self.root}/a.{form}", "rb") as one, open(f"{self.root}/b.{form}", "rb") as other:
                content = one.read()
                self.assertTrue(content.startswith(magic))
                self.assertEqual(content, other.read())

    def test_errors_are_one_line_with_the_valid_values(self):
        before = self.files()
        for arguments, words in (
            (("--metric=test_acuracy",), ("--metric:", "did you mean 'test_accuracy'", "valid: test_accuracy, test_loss")),
            (("--x=lrr",), ("--x:", "'lrr'", "did you mean 'lr'")),
            (("--by=act",), ("--by:", "'act'")),
            (("--x=weights_left",), ("--x:", "only levels of pruning experiments")),
            (("--x=weights_left", "--metric=test_loss"), ("--x:", "weights_left", "test_loss")),
            (("--format=gif",), ("--format:", "'gif'", "pdf, png")),
            (("--output=a.jpg",), ("--output:", "'jpg'", "pdf, png")),
            (("--log=z",), ("--log:", "'z'", "none, x, xy, y")),
            (("--where=lr=7",), ("none of the 4 runs",)),
            (("ffffffff",), ("'ffffffff'", "no hash of a run begins with it")),
            (("--platform=slurm",), ("--platform=slurm", "not an argument")),
        ):
            with self.subTest(arguments):
                err = self.refuse(*arguments)
                for word in words:
                    self.assertIn(word, err)
        self.assertEqual(self.files(), before)


class TestComparisons(PlotTestCase):
    def test_errors_of_extractions_are_drawn_against_the_hyperparameter_that_differs(self):
        for gamma, errors in ((0.5, (1e-3, 1e-5)), (0.9, (1e-14, 1e-16))):
            for seed, error in enumerate(errors):
                run_folders.extract_run(self.root, run_folders.extraction("train_" + "0" * 32, gamma), seed, error=error)
        axes, _ = self.draw()
        self.assertEqual([axis.get_ylabel() for axis in axes], ["max relative error", "max abs error", "seconds"])
        self.check(self.lines(axes[0])["extract (2 seeds)"], [(0.5, 1e-4), (0.9, 1e-15)])
        self.assertEqual((axes[0].get_yscale(), axes[0].get_xlabel()), ("log", "gamma"))
        (axis,), _ = self.draw("--metric=test_accuracy", "--x=iteration")  # of the students
        self.check(self.lines(axis)["gamma=0.9 (2 seeds)"], [(0, 10), (240, 45), (480, 90)])

    def test_tickets_and_their_branches_are_drawn_against_the_weights_left(self):
        for seed in range(2):
            location = run_folders.lottery_run(self.root, run_folders.lottery(), seed)
            for level in range(2):
                folder = os.path.join(location, f"level_{level}", f"lottery_branch_retrain_{'0' * 32}")
                run_folders.finish(folder, 0.5 + level / 10 + seed / 5)
                run_folders.write(paths.sparsity_report(folder), f'{{"unpruned": {1000 - 200 * level}, "total": 1000}}')
        axes, _ = self.draw()
        self.assertEqual(len(axes), 2)
        lines = self.lines(axes[0])
        self.assertEqual([*lines], ["tickets (2 seeds)", "retrain (2 seeds)"])
        self.check(lines["tickets (2 seeds)"], [(100, 90), (80, 89), (64, 88)])
        self.check(lines["retrain (2 seeds)"], [(100, 60), (80, 70)])
        (axis,), _ = self.draw("--metric=test_loss", "--x=weights_left", "--where=kind=lottery")
        ((_, line),) = self.lines(axis).items()
        self.check(line, [(64, 0.12), (80, 0.11), (100, 0.1)])
        (axis,), _ = self.draw("--metric=test_accuracy", "--x=iteration", "--by=level", "--where=kind=lottery")
        self.assertEqual([*self.lines(axis)], [f"level={level} (2 seeds)" for level in range(3)])


class TestFiles(TestCase):
    def test_a_tilde_in_the_output_is_the_home_of_the_user(self):
        with mock.patch.dict(os.environ, {"HOME": "/home/anna"}):
            self.assertEqual(PlotArgs(output="~/lr.png", format="png,pdf").files("x"), ["/home/anna/lr.png", "/home/anna/lr.pdf"])
