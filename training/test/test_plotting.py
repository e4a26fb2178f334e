"""Plots of training for different logged metrics."""

import os

import PIL.Image

from foundations.step import Step
from testing.test_case import TestCase
from training import plotting
from training.metric_logger import MetricLogger


class CurvesTest(TestCase):
    def picture(self, **metrics: list) -> PIL.Image.Image:
        """The plot of some metrics with one value for each iteration."""
        logger = MetricLogger()
        for name, values in metrics.items():
            for iteration, value in enumerate(values):
                logger.add(name, Step(iteration, 1), value)
        plotting.curves(logger, self.root)
        with PIL.Image.open(os.path.join(self.root, "curves.png")) as picture:
            picture.load()
            return picture

    def test_the_file_is_a_png_that_is_not_blank(self):
        picture = self.picture(train_loss=[1.0, 0.5, 0.1], test_loss=[1.0, 0.6, 0.2])
        self.assertEqual(picture.format, "PNG")
        self.assertGreater(len(picture.convert("RGB").getcolors(2**24)), 10)
        self.assertEqual(self.files(), ["curves.png"])

    def test_accuracy_has_a_second_panel(self):
        losses = {"train_loss": [1.0, 0.5], "test_loss": [1.0, 0.6]}
        alone, both = self.picture(**losses), self.picture(**losses, train_accuracy=[0.1, 0.9], test_accuracy=[0.1, 0.8])
        self.assertEqual(both.size, (2 * alone.size[0], alone.size[1]))

    def test_every_student_has_a_line(self):
        losses = {"train_loss": [2.0, 1.0], "test_loss": [2.0, 1.0]}
        few = self.picture(**losses, test_individual_losses=[[2.0], [1.0]])
        many = self.picture(**losses, test_individual_losses=[[2.0, 9.0, 30.0], [1.0, 4.0, 10.0]])
        self.assertNotEqual(few.tobytes(), many.tobytes())

    def test_zero_infinite_and_nan_losses_and_single_points_can_be_drawn(self):
        for values in ([1.0, 0.0], [1.0], [float("inf"), 1.0], [1.0, float("nan")]):
            self.assertGreater(min(self.picture(train_loss=values, test_loss=values).size), 100)
