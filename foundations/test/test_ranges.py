"""Lists of whole numbers as text."""

from foundations import ranges
from foundations.errors import ConfigError
from testing.test_case import TestCase


def make_error(part: str, is_empty: bool) -> Exception:
    return ValueError(f"{part!r} {'is empty' if is_empty else 'is not a range'}")


class TestRanges(TestCase):
    def test_a_part_is_a_number_or_a_range(self):
        parts = {"3": [3], "0-2": [0, 1, 2], "4-4": [4], "3-1": []}
        self.assertEqual({text: [*ranges.parse(text)] for text in parts}, parts)
        for text in ("", "-1", "1-", "1-2-3", "0-8:2", " 3", "a"):
            self.assertIsNone(ranges.parse(text), text)

    def test_a_stepped_range_has_two_ends(self):
        parts = {"0-2": [0, 1, 2], "0-8:4": [0, 4, 8], "1-8:4": [1, 5], "3-1": [], "0-4:0": []}
        self.assertEqual({text: [*ranges.parse_stepped(text)] for text in parts}, parts)
        for text in ("3", "0-8:", "0-8:2:1", "-1-3", "1e-3"):
            self.assertIsNone(ranges.parse_stepped(text), text)

    def test_a_list_is_parsed_without_duplicates(self):
        self.assertEqual(ranges.parse_list("5-7, 0,3,6", make_error), [0, 3, 5, 6, 7])

    def test_an_invalid_part_raises_the_error_that_the_caller_makes(self):
        wrong = {
            "1,a-2": "'a-2' is not a range",
            "1,,2": "'' is not a range",
            "0, 3-1": "'3-1' is empty",
            "0-4:2": "'0-4:2' is not a range",
        }
        for text, message in wrong.items():
            with self.assertRaises(ValueError) as caught:
                ranges.parse_list(text, make_error)
            self.assertEqual(str(caught.exception), message)

    def test_a_list_of_too_many_numbers_is_refused_before_they_are_made(self):
        for text in ("0-3000000000", "0-9999,20000-29999", "5,0-99999999999999999"):
            with self.assertRaisesRegex(ConfigError, "^--seeds: .* has too many numbers; valid: at most 10,000"):
                ranges.parse_list(text, make_error, "--seeds")
        self.assertEqual(len(ranges.parse_list("0-9999", make_error)), 10000)

    def test_a_number_of_more_than_18_digits_is_no_number(self):
        for text in (19 * "1", 5000 * "1", f"0-{19 * '9'}"):
            self.assertIsNone(ranges.parse(text))
            self.assertIsNone(ranges.parse_stepped(text))

    def test_parsing_and_formatting_are_inverse(self):
        for text in ("0", "0-2,5,7-8", "3,5-6"):
            self.assertEqual(ranges.to_text(ranges.parse_list(text, make_error)), text)

    def test_numbers_are_formatted_sorted_without_duplicates_and_negative_ones_without_ranges(self):
        shown = {(): "", (2, 1, 1): "1-2", (-1, 0, 1): "-1,0-1", (-2, -1): "-2,-1", (10, 9, -3, 0): "-3,0,9-10"}
        self.assertEqual({numbers: ranges.to_text(numbers) for numbers in shown}, shown)
