"""Messages for what the user got wrong."""

from foundations.errors import ConfigError, did_you_mean, unknown
from testing.test_case import TestCase


class TestErrors(TestCase):
    def test_an_unknown_value_is_shown_with_the_nearest_and_with_all_that_are_valid(self):
        error = unknown("--act_fun", "rleu", {"tanh": 1, "relu": 2, "leaky_relu": 3})
        self.assertIsInstance(error, ConfigError)
        self.assertEqual(str(error), "--act_fun: 'rleu' is not known, did you mean 'relu'?; valid: leaky_relu, relu, tanh")

    def test_where_nothing_is_near_nothing_is_suggested(self):
        message = str(unknown("--act_fun", "xyz", ["tanh", "relu"]))
        self.assertNotIn("did you mean", message)
        self.assertIn("valid: relu, tanh", message)

    def test_an_empty_list_is_called_none(self):
        self.assertTrue(str(unknown("--x", "y", [])).endswith("valid: none"))

    def test_the_message_is_one_line_even_where_the_value_is_not(self):
        self.assertNotIn("\n", str(unknown("--x", "a\nb", ["ab"])))

    def test_a_value_that_is_no_text_can_be_shown(self):
        self.assertIn("--x: None is not known", str(unknown("--x", None, ["nine"])))

    def test_the_nearest_of_several_is_suggested(self):
        self.assertEqual(did_you_mean("--lrr", ["--lr_decay", "--lr", "--l"]), ", did you mean '--lr'?")

    def test_capitals_and_hyphens_are_no_distance(self):
        self.assertEqual(did_you_mean("LEAKY-ReLU", ["relu", "leaky_relu"]), ", did you mean 'leaky_relu'?")
        self.assertEqual(did_you_mean("--default-hparams", ["--default_hparams"]), ", did you mean '--default_hparams'?")

    def test_a_beginning_stands_for_the_first_that_has_it(self):
        self.assertEqual(did_you_mean("leven", ["lbfgs", "levenberg_marquardt"]), ", did you mean 'levenberg_marquardt'?")
        self.assertEqual(did_you_mean("", ["lbfgs"]), "")
