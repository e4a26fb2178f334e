"""The ledger asks every question once, and keeps every answer, whenever the process is killed."""

import os

import numpy as np

from datasets.teachers.ledger import Ledger, keys_of
from foundations.errors import ConfigError
from testing.test_case import TestCase

QUERIES = np.random.RandomState(0).randn(10, 3)


class Killed(BaseException):
    """A process ends here."""


class Counting:
    """A teacher that writes down what it was asked, and fails at some call."""

    def __init__(self, killed_at: int | None = None):
        self.asked: list[bytes] = []
        self.numbers: list[int] = []
        self.killed_at = killed_at

    def __call__(self, queries: np.ndarray, number: int) -> tuple[np.ndarray, None]:
        if len(self.numbers) == self.killed_at:
            raise Killed
        self.asked += [row.tobytes() for row in queries]
        self.numbers.append(number)
        return 2 * queries[:, :2], None


class TestLedger(TestCase):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.root, "function_0.ledger")

    def ask(self, respond, queries=QUERIES, batch_size: int = 3, occasion: int = 0) -> np.ndarray:
        ledger, keys = Ledger(self.path), keys_of(queries, occasion)
        ledger.ask(queries, keys, "training", batch_size, respond)
        return ledger.answers(keys)

    def test_answers_are_those_of_the_queries_and_come_from_the_file_the_second_time(self):
        teacher = Counting()
        for _ in range(2):
            np.testing.assert_array_equal(self.ask(teacher), 2 * QUERIES[:, :2])
        self.assertEqual(teacher.asked, [row.tobytes() for row in QUERIES])
        self.assertEqual(teacher.numbers, [1, 4, 7, 10])

    def test_a_query_that_occurs_twice_is_asked_once(self):
        teacher, repeated = Counting(), QUERIES[[0, 1, 0, 0, 2]]
        np.testing.assert_array_equal(self.ask(teacher, repeated), 2 * repeated[:, :2])
        self.assertEqual(len(teacher.asked), 3)

    def test_a_query_of_another_occasion_is_asked_again_and_counted(self):
        teacher = Counting()
        for occasion in (0, 1, 1):
            self.ask(teacher, occasion=occasion)
        self.assertEqual((len(teacher.asked), Ledger(self.path).asked), (20, 20))

    def test_a_killed_process_loses_only_the_batch_that_it_was_asking(self):
        for call in range(4):
            self.path = os.path.join(self.root, f"function_{call}.ledger")
            killed = Counting(killed_at=call)
            with self.assertRaises(Killed):
                self.ask(killed)
            again = Counting()
            np.testing.assert_array_equal(self.ask(again), 2 * QUERIES[:, :2])
            self.assertEqual(killed.asked + again.asked, [row.tobytes() for row in QUERIES])
            lost = min(3, 10 - 3 * call)
            self.assertEqual(Ledger(self.path).asked, 10 + lost)  # the teacher may have seen them
            self.assertEqual(Ledger(self.path).lost(keys_of(QUERIES)), lost)

    def test_a_file_that_ends_anywhere_is_completed_and_has_the_same_answers(self):
        self.ask(Counting())
        with open(self.path, "rb") as file:
            content = file.read()
        for end in range(0, len(content), 7):
            with open(self.path, "wb") as file:
                file.write(content[:end])
            np.testing.assert_array_equal(self.ask(Counting()), 2 * QUERIES[:, :2])
            np.testing.assert_array_equal(self.ask(Counting(killed_at=0)), 2 * QUERIES[:, :2])

    def test_an_error_keeps_the_answers_before_it(self):
        def failing(queries, number):
            return (queries[:1, :2], ConfigError("no more")) if number == 4 else (queries[:, :2], None)

        with self.assertRaisesRegex(ConfigError, "no more"):
            self.ask(failing)
        again = Counting()
        self.ask(again)
        self.assertEqual(again.asked, [row.tobytes() for row in QUERIES[4:]])

    def test_damage_and_foreign_files_are_refused_by_a_line(self):
        self.ask(Counting())
        with open(self.path, "rb") as file:
            content = file.read()
        for damaged in (content[:40] + b"?" + content[41:], b"PK" + content[2:]):
            with open(self.path, "wb") as file:
                file.write(damaged)
            with self.assertRaisesRegex(ConfigError, "ledger is damaged .*; move it away to ask everything again"):
                Ledger(self.path)
