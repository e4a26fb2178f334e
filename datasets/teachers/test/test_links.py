"""Answers that are probabilities, and the logits that they are converted to."""

import os

import numpy as np
from scipy.special import expit, log_softmax, softmax

from datasets.teachers import answer_files, links, stored_answers
from datasets.teachers.answer_files import Layout
from foundations import dataset_hparams
from foundations.errors import ConfigError
from testing.test_case import TestCase

QUERIES, LOGITS = np.random.RandomState(0).randn(40, 3), 3 * np.random.RandomState(1).randn(40, 4)
CENTRED = LOGITS - LOGITS.mean(1, keepdims=True)


class TestLinks(TestCase):
    def test_all_links_have_a_meaning(self):
        self.assertEqual(dataset_hparams.LINKS, links.LINKS)

    def test_probabilities_become_the_logits_to_rounding(self):
        expected = {"softmax": CENTRED, "log_softmax": CENTRED, "sigmoid": LOGITS, "raw": LOGITS}
        answers = {"softmax": softmax(LOGITS, 1), "log_softmax": log_softmax(LOGITS, 1), "sigmoid": expit(LOGITS), "raw": LOGITS}
        for link in links.LINKS:
            with self.subTest(link):
                np.testing.assert_allclose(links.logits(answers[link], link), expected[link], rtol=0, atol=1e-12)
                self.assertEqual(links.notice(answers[link]), None if link == "raw" else link)

    def test_very_small_probabilities_keep_their_digits(self):
        logits = np.array([[0.0, -300, -650]])
        centred = logits - logits.mean()
        np.testing.assert_allclose(links.logits(softmax(logits, 1), "softmax"), centred, rtol=1e-14)

    def test_rounded_probabilities_are_noticed(self):
        for answers in (softmax(LOGITS, 1).astype(np.float32), softmax(LOGITS, 1).round(4), softmax(LOGITS, 1).round(2)):
            self.assertEqual(links.notice(answers), "softmax")
        self.assertEqual(links.notice(log_softmax(LOGITS, 1).round(2)), "log_softmax")

    def test_a_few_rows_may_be_no_probabilities(self):
        for link, answers in (("softmax", softmax(LOGITS, 1)), ("log_softmax", log_softmax(LOGITS, 1)), ("sigmoid", expit(LOGITS))):
            with self.subTest(link):
                answers[[5, 9]] = [-999, 0.2, 0.2, 0.6]
                self.assertEqual(links.notice(answers), link)
                converted = links.convert(answers, link)
                self.assertEqual(np.flatnonzero(~converted.kept).tolist(), [5, 9])
                self.assertIn("2 rows are no such answers and are left out: 5, 9", converted.note)
                answers[:5] = -999
                self.assertIsNone(links.notice(answers))
        answers = expit(LOGITS)
        answers[5] = 1.1  # a plain network may give this
        self.assertIsNone(links.notice(answers))

    def test_outputs_of_plain_networks_are_not_taken_for_probabilities(self):
        unit = np.random.RandomState(2).rand(40, 3)
        plain = [
            LOGITS,
            -np.abs(LOGITS),
            0.2 + 0.6 * unit,
            (unit - unit.min()) / np.ptp(unit),
            unit - unit.mean(1, keepdims=True),
            unit[:, :1] * 0 + 1,
        ]
        for answers in plain:
            self.assertIsNone(links.notice(answers))

    def test_answers_from_zero_to_one_may_be_those_of_a_sigmoid(self):
        within = 0.2 + 0.6 * expit(LOGITS)
        wrong, near = within.copy(), within.copy()
        wrong[3, 0], near[3, 0] = -7, 1.5
        some, most = (np.where(np.arange(40)[:, None] < count, [1, 0, 0, 0], within) for count in (20, 21))
        cases = (within, "sigmoid"), (wrong, "sigmoid"), (some, "sigmoid"), (near, None), (most, None), (LOGITS, None), (within + 0.3, None)
        self.assertEqual([links.alternative(answers) for answers, _ in cases], [expected for _, expected in cases])

    def test_rows_without_logits_are_left_out_and_named(self):
        answers = softmax(LOGITS, 1)
        answers[7], answers[20] = [1, 0, 0, 0], [0.5, 0.5, 0, 0]
        converted = links.convert(answers, "softmax")
        kept = [place for place in range(40) if place not in (7, 20)]
        np.testing.assert_array_equal(np.flatnonzero(converted.kept), kept)
        np.testing.assert_allclose(converted.logits, CENTRED[kept], atol=1e-12)
        self.assertIsNone(converted.errors)
        self.assertIn("2 rows have a probability of exactly 0 or 1 and are left out, by number from 0: 7, 20", converted.note)
        with self.assertRaisesRegex(ValueError, "21 of 40 rows have a probability of exactly 0 or 1"):
            links.convert(np.where(np.arange(40)[:, None] < 21, [1, 0, 0, 0], softmax(LOGITS, 1)), "softmax")

    def test_answers_that_no_network_with_the_link_gives_are_refused(self):
        cases = [
            (LOGITS, "softmax", "softmax needs probabilities from 0 to 1; the answers are from"),
            (LOGITS, "sigmoid", "sigmoid needs probabilities from 0 to 1"),
            (LOGITS, "log_softmax", "log_softmax needs logarithms of probabilities, which are at most 0"),
            (expit(LOGITS[:, :1]), "softmax", "softmax needs two outputs or more; valid: --link sigmoid"),
        ]
        for answers, link, said in cases:
            with self.subTest(said), self.assertRaises(ValueError) as caught:
                links.logits(answers, link)
            self.assertIn(said, str(caught.exception))


class TestFiles(TestCase):
    def inspect(self, answers: np.ndarray, link: str | None = None) -> tuple[stored_answers.AnswerFile, np.ndarray]:
        path = os.path.join(self.root, "it.npz")
        np.savez(path, X=QUERIES, y=answers)
        teacher, content = stored_answers.inspect_answers(path, Layout(link=link))
        with open(path, "wb") as file:
            file.write(content)
        return teacher, answer_files.read_stored(path).answers

    def test_a_run_stores_the_logits_of_a_file_of_probabilities(self):
        for link in (None, "softmax"):
            teacher, stored = self.inspect(softmax(LOGITS, 1), link)
            np.testing.assert_allclose(stored, CENTRED, atol=1e-12)
            self.assertEqual(teacher.link, "softmax")
            self.assertIn("it.npz: the answers are taken as softmax and converted to logits with mean zero in each row", teacher.note)

    def test_answers_that_may_be_probabilities_are_kept_with_a_hint(self):
        answers = 0.2 + 0.6 * expit(LOGITS)
        teacher, stored = self.inspect(answers)
        np.testing.assert_array_equal(stored, answers)
        self.assertEqual((teacher.link, teacher.other_link), (None, "sigmoid"))
        self.assertIn("it.npz: all answers are from 0 to 1 and taken as raw; if they are the probabilities of a sigmoid", teacher.note)

    def test_raw_keeps_probabilities_as_they_are(self):
        answers = softmax(LOGITS, 1)
        teacher, stored = self.inspect(answers, "raw")
        np.testing.assert_array_equal(stored, answers)
        self.assertEqual((teacher.link, teacher.other_link, teacher.note), ("raw", None, ""))

    def test_the_logits_are_not_converted_again(self):
        """Logits of a sigmoid may themselves look like probabilities."""
        teacher, stored = self.inspect(expit(softmax(LOGITS, 1)), "sigmoid")
        np.testing.assert_allclose(stored, softmax(LOGITS, 1), atol=1e-12)
        self.assertEqual(teacher.link, "sigmoid")

    def test_a_link_that_does_not_fit_is_refused_in_one_line(self):
        with self.assertRaisesRegex(ConfigError, "^--link: .*it.npz: sigmoid needs probabilities from 0 to 1; the answers are from"):
            self.inspect(LOGITS, "sigmoid")
        status, _, err = self.command(
            "train", "--default_hparams=mlp_3_4_2", "--dataset_name=teacher", "--teacher_name=x.npz", "--link=logit"
        )
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertIn("--link: 'logit' is not known", err)
