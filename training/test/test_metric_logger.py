"""The log of metrics: written values are read back exactly, and the content is not executed."""

import math
import os

from foundations import paths
from foundations.errors import ConfigError
from foundations.step import Step
from platforms.platform import get_platform
from testing.test_case import TestCase
from training.metric_logger import MetricLogger


def log(*records: tuple[str, int, float | list[float]]) -> MetricLogger:
    logger = MetricLogger()
    for name, iteration, value in records:
        logger.add(name, Step(iteration, 10), value)
    return logger


class MetricLoggerTest(TestCase):
    def test_a_record_is_a_line_of_name_iteration_and_value(self):
        text = str(log(("test_loss", 3, 0.5), ("test_individual_losses", 3, [0.25, 1e-30])))
        self.assertEqual(text, "test_loss$3$0.5\ntest_individual_losses$3$[0.25, 1e-30]\n")

    def test_a_round_trip_keeps_every_digit(self):
        values = [0.1 + 0.2, 1 / 3, 1e-300, 5e-324, -0.0, 1.7976931348623157e308, math.pi * 1e17]
        logger = log(*(("x", place, value) for place, value in enumerate(values)), ("v", 0, values))
        again = MetricLogger.from_str(str(logger))
        self.assertEqual([value.hex() for _, value in again.get("x")], [value.hex() for value in values])
        self.assertEqual([value.hex() for value in again.latest("v")], [value.hex() for value in values])
        self.assertEqual(str(again), str(logger))

    def test_a_round_trip_keeps_nan_and_infinity(self):
        again = MetricLogger.from_str(str(log(("x", 0, math.inf), ("x", 1, -math.inf), ("x", 2, math.nan))))
        values = [value for _, value in again.get("x")]
        self.assertEqual(values[:2], [math.inf, -math.inf])
        self.assertTrue(math.isnan(values[2]))

    def test_the_file_has_null_in_place_of_nan_and_infinity(self):
        log(("a", 0, math.inf), ("a", 1, math.nan), ("v", 0, [1.0, -math.inf]), ("a", 2, 0.5)).save(self.root)
        with open(paths.logger(self.root)) as file:
            self.assertEqual(file.read(), "a$0$null\na$1$null\nv$0$[1.0, null]\na$2$0.5\n")
        loaded = MetricLogger.load(self.root)
        self.assertEqual([math.isnan(value) for _, value in loaded.numbers("a")], [True, True, False])
        self.assertEqual([math.isnan(value) for value in loaded.vectors("v")[0][1]], [False, True])

    def test_logs_with_nan_and_infinity_are_read(self):
        logger = MetricLogger.from_str("a$0$NaN\na$1$Infinity\na$2$-Infinity\nv$0$[NaN, 1.0]\n")
        self.assertEqual([value for _, value in logger.numbers("a")][1:], [math.inf, -math.inf])
        self.assertTrue(math.isnan(logger.numbers("a")[0][1]) and math.isnan(logger.vectors("v")[0][1][0]))

    def test_vectors_are_read_back_as_lists(self):
        self.assertEqual(MetricLogger.from_str(str(log(("v", 7, [1.0, 2.5])))).get("v"), [(7, [1.0, 2.5])])

    def test_values_are_in_the_order_of_the_iterations(self):
        self.assertEqual(log(("a", 20, 2.0), ("b", 1, 9.0), ("a", 3, 1.0), ("a", 100, 3.0)).get("a"), [(3, 1.0), (20, 2.0), (100, 3.0)])

    def test_a_second_value_for_the_same_iteration_replaces_the_first(self):
        logger = log(("a", 3, 1.0), ("a", 3, 2.0))
        self.assertEqual(logger.get("a"), [(3, 2.0)])
        self.assertEqual(str(logger), "a$3$2.0\n")

    def test_the_latest_value_is_that_of_the_latest_iteration(self):
        self.assertEqual(log(("a", 20, 2.0), ("a", 3, 1.0)).latest("a"), 2.0)
        self.assertIsNone(log().latest("a"))

    def test_names_are_listed_once_in_order(self):
        self.assertEqual(log(("b", 0, 1.0), ("a", 0, 1.0), ("b", 1, 1.0)).names(), ["a", "b"])

    def test_names_with_separators_are_refused(self):
        for name in ("a$b", "a\nb"):
            with self.assertRaises(ValueError):
                log((name, 0, 1.0))

    def test_the_log_is_saved_in_the_run_folder_and_read_back(self):
        logger = log(("a", 0, 0.1), ("v", 0, [0.2, 0.3]))
        logger.save(os.path.join(self.root, "run"))
        self.assertEqual(self.files(), ["run/logger"])
        self.assertEqual(str(MetricLogger.load(os.path.join(self.root, "run"))), str(logger))

    def test_the_content_of_a_log_is_not_executed(self):
        target = os.path.join(self.root, "made")
        for value in (f"open({target!r}, 'w').close()", f"__import__('os').mkdir({target!r})", "1 + 1"):
            with self.assertRaises(ValueError):
                MetricLogger.from_str(f"a$0${value}\n")
        self.assertFalse(os.path.exists(target))

    def test_the_error_names_a_damaged_file(self):
        wrong = ["a$0$0.5\na$1", "a$0\n", "a$x$1.0\n", "a$0$[1.0,\n", "a$b$0$1.0\n", "\n", "hello", "a$0$0.5\na$1$0.12"]
        wrong += ["a$-1$1.0\n", f"a${10**30}$1.0\n", f"a$0${10**30}\n"]
        wrong += [f"a$0${value}\n" for value in ('"x"', "true", "{}", "[[1.0]]", '["x"]', "[" * 100_000, "1" * 10_000)]
        for content in wrong:
            get_platform().write(paths.logger(self.root), content)
            with self.assertRaisesRegex(ConfigError, f"{paths.logger(self.root)} is damaged"):
                MetricLogger.load(self.root)

    def test_the_error_names_a_file_that_is_not_text(self):
        get_platform().write(paths.logger(self.root), b"\xff\xfe\x00")
        with self.assertRaisesRegex(ConfigError, paths.logger(self.root)):
            MetricLogger.load(self.root)
