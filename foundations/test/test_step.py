"""Moments of training and the strings that name them."""

from foundations import step
from foundations.errors import ConfigError
from foundations.step import Step
from testing.test_case import TestCase


class TestStep(TestCase):
    def test_epochs_and_iterations_come_to_one_count(self):
        self.assertEqual(Step.from_epoch(3, 20, 100).iteration, 320)

    def test_a_count_splits_into_epochs_and_iterations(self):
        moment = Step(320, 100)
        self.assertEqual((moment.ep, moment.it), (3, 20))

    def test_iterations_beyond_an_epoch_carry_over(self):
        moment = Step.from_epoch(1, 250, 100)
        self.assertEqual((moment.ep, moment.it), (3, 50))

    def test_the_end_of_an_epoch_is_the_start_of_the_next(self):
        self.assertEqual(str(Step(200, 100)), "ep2_it0")

    def test_three_forms_of_text_are_read(self):
        for text, iteration in (("40ep", 4000), ("500it", 500), ("3ep20it", 320), ("0ep", 0), ("0it", 0), ("1ep250it", 350)):
            with self.subTest(text=text):
                self.assertEqual(Step.from_str(text, 100).iteration, iteration)

    def test_other_text_is_an_error_that_shows_the_forms(self):
        for text in ("10epochs", "", "ep", "10", "20it3ep", "-1ep", "1.5ep", "3ep20", "3 ep", "3ep\n", "3EP"):
            with self.subTest(text=text), self.assertRaisesRegex(ConfigError, "40ep .*500it .*3ep20it"):
                Step.from_str(text, 100)

    def test_the_error_shows_the_text_and_where_it_stood(self):
        with self.assertRaisesRegex(ConfigError, "^--warmup_steps: '10epochs' "):
            step.parse("10epochs", "--warmup_steps")

    def test_steps_are_ordered_by_iteration(self):
        early, late = Step.from_str("1ep99it", 100), Step.from_str("2ep", 100)
        self.assertTrue(early < late and late > early and early <= late and early != late)
        self.assertEqual(max(late, early), late)

    def test_epochs_order_as_numbers_rather_than_as_text(self):
        self.assertLess(Step.from_str("9ep", 100), Step.from_str("10ep", 100))

    def test_two_spellings_of_a_moment_are_equal_and_hash_alike(self):
        self.assertEqual(len({Step.from_str("3ep20it", 100), Step.from_str("320it", 100), Step.from_str("1ep220it", 100)}), 1)

    def test_the_mark_of_the_last_step_takes_no_part_in_comparisons(self):
        self.assertEqual(Step(5, 10, last=True), Step(5, 10))

    def test_the_length_of_an_epoch_takes_no_part_in_comparisons(self):
        self.assertEqual(Step(5, 10), Step(5, 3))
        self.assertLess(Step(5, 10), Step(6, 3))

    def test_zero_is_before_everything(self):
        self.assertEqual(str(Step.zero(7)), "ep0_it0")
        self.assertLess(Step.zero(7), Step(1, 7))

    def test_a_step_cannot_be_changed(self):
        with self.assertRaises(AttributeError):
            Step(1, 2).iteration = 3

    def test_negative_iterations_and_empty_epochs_do_not_exist(self):
        for iteration, per_epoch in ((-1, 10), (0, 0), (3, -2)):
            with self.subTest(iteration=iteration, per_epoch=per_epoch), self.assertRaises(ValueError):
                Step(iteration, per_epoch)
