"""Messages of errors in the user's input."""

from foundations.errors import ConfigError, did_you_mean, unknown
from testing.test_case import TestCase


class TestErrors(TestCase):
    def test_the_error_suggests_the_nearest_value_and_lists_all_valid_ones(self):
        error = unknown("--act_fun", "rleu", {"tanh": 1, "relu": 2, "leaky_relu": 3})
        self.assertIsInstance(error, ConfigError)
        self.assertEqual(str(error), "--act_fun: 'rleu' is not known, did you mean 'relu'?; valid: leaky_relu, relu, tanh")

    def test_nothing_is_suggested_if_no_value_is_near(self):
        message = str(unknown("--act_fun", "xyz", ["tanh", "relu"]))
        self.assertNotIn("did you mean", message)
        self.assertIn("valid: relu, tanh", message)

    def test_an_empty_list_of_valid_values_is_shown_as_none(self):
        self.assertTrue(str(unknown("--x", "y", [])).endswith("valid: none"))

    def test_the_message_is_one_line_even_if_the_value_has_several(self):
        self.assertNotIn("\n", str(unknown("--x", "a\nb", ["ab"])))

    def test_the_value_may_have_any_type(self):
        self.assertIn("--x: None is not known", str(unknown("--x", None, ["nine"])))

    def test_the_nearest_of_several_is_suggested(self):
        self.assertEqual(did_you_mean("--lrr", ["--lr_decay", "--lr", "--l"]), ", did you mean '--lr'?")

    def test_suggestions_ignore_case_and_hyphens(self):
        self.assertEqual(did_you_mean("LEAKY-ReLU", ["relu", "leaky_relu"]), ", did you mean 'leaky_relu'?")
        self.assertEqual(did_you_mean("--default-hparams", ["--default_hparams"]), ", did you mean '--default_hparams'?")

    def test_a_prefix_suggests_the_first_value_that_starts_with_it(self):
        self.assertEqual(did_you_mean("leven", ["lbfgs", "levenberg_marquardt"]), ", did you mean 'levenberg_marquardt'?")
        self.assertEqual(did_you_mean("", ["lbfgs"]), "")
