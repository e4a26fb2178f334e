"""Plots of training for different logged metrics."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

import matplotlib
import PIL.Image

from foundations import paths
from foundations.errors import Busy, ConfigError
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

    def test_losses_of_any_size_can_be_drawn(self):
        nothing = self.picture(train_loss=[float("nan"), float("nan")]).tobytes()
        for values in ([1.7e308, 1e308], [-1.7e308, 1e308], [1.0, 1e300], [-1.0, -2.0], [5e-324, 1e-310], [1e-300, 1e300], [2**62, 1]):
            picture = self.picture(train_loss=values, test_individual_losses=[[value, 1.0] for value in values])
            self.assertNotEqual(picture.tobytes(), nothing)

    def test_the_settings_of_the_user_do_not_change_a_picture(self):
        losses = {"train_loss": [1.0, 0.5, 0.1], "test_loss": [1.0, 0.6, 0.2]}
        plain = self.picture(**losses).tobytes()
        with matplotlib.rc_context({"text.usetex": True, "font.family": ["missing"], "savefig.dpi": 3, "axes.facecolor": "red"}):
            self.assertEqual(self.picture(**losses).tobytes(), plain)


class SettingsTest(TestCase):
    def test_matplotlib_is_imported_without_the_backend_and_the_settings_of_the_user(self):
        settings = os.path.join(self.root, "matplotlibrc")
        with open(settings, "w") as file:
            file.write("text.usetex: True\nno such line\nbackend: nonsense\n")
        program = (
            "from training import plotting\nimport os\n"
            "with plotting.drawing():\n    import matplotlib\n    print(matplotlib.rcParams['text.usetex'], matplotlib.get_backend())\n"
            "print(os.environ['MPLBACKEND'])"
        )
        environment = {**os.environ, "MPLBACKEND": "nonsense", "MATPLOTLIBRC": settings, "MPLCONFIGDIR": "/dev/null/none"}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        self.assertEqual((done.stdout, done.stderr), ("False agg\nnonsense\n", ""))


class AttemptTest(TestCase):
    def attempt(self, error: BaseException) -> tuple[bool, str]:
        """Whether a picture whose drawing raises an error is drawn, and the text on standard error."""
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            drawn = plotting.attempt("a.png", mock.Mock(side_effect=error))
        return drawn, err.getvalue()

    def test_a_picture_that_fails_is_a_warning_in_one_line(self):
        errors = {
            ValueError("first\nsecond"): "ValueError: first",
            ImportError("no module"): "ImportError: no module",
            MemoryError(): "MemoryError: MemoryError",
            ConfigError("a.png cannot be written"): "ConfigError: a.png cannot be written",
        }
        for error, text in errors.items():
            warning = f"Warning: a.png is not drawn ({text}); run the same command again to draw it\n"
            self.assertEqual(self.attempt(error), (False, warning))
        self.assertTrue(plotting.attempt("a.png", lambda: None))

    def test_a_lost_lock_and_an_interrupt_are_no_warnings(self):
        for error in (Busy("lost"), KeyboardInterrupt()):
            with self.assertRaises(type(error)):
                self.attempt(error)

    def test_missing_curves_of_a_finished_run_are_drawn(self):
        plotting.draw_missing_curves(self.root)
        self.assertEqual(self.files(), [])
        logger = MetricLogger()
        logger.add("train_loss", Step(0, 1), 1.0)
        logger.save(self.root)
        plotting.draw_missing_curves(self.root)
        self.assertEqual(self.files(), ["curves.png", "logger"])
        with mock.patch("training.plotting.curves", side_effect=AssertionError):
            plotting.draw_missing_curves(self.root)

    def test_the_log_of_a_run_is_written_before_its_curves(self):
        flags = ["train", "--default_hparams=digits_lenet_4", "--training_steps=1it", "--global_seed=0"]
        with mock.patch("training.plotting.curves", side_effect=ValueError("broken")):
            status, out, err = self.command(*flags)
        self.assertEqual((status, out.splitlines()[-1][:9]), (0, "Finished:"))
        self.assertRegex(err, r"^Warning: .*/curves.png is not drawn \(ValueError: broken\); run the same command again to draw it\n$")
        (folder,) = {os.path.dirname(name) for name in self.files() if name.endswith("logger")}
        self.assertNotIn(f"{folder}/curves.png", self.files())
        self.assertEqual((self.command(*flags)[0], os.path.exists(paths.curves(os.path.join(self.root, folder)))), (0, True))
