from foundations import ranges
from testing.test_case import TestCase


def refusal(part: str, falls: bool) -> Exception:
    return ValueError(f"{part!r} {'falls' if falls else 'is no range'}")


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

    def test_a_list_names_each_number_once(self):
        self.assertEqual(ranges.numbers("5-7, 0,3,6", refusal), [0, 3, 5, 6, 7])

    def test_the_part_that_is_wrong_is_refused(self):
        wrong = {"1,a-2": "'a-2' is no range", "1,,2": "'' is no range", "0, 3-1": "'3-1' falls", "0-4:2": "'0-4:2' is no range"}
        for text, message in wrong.items():
            with self.assertRaises(ValueError) as caught:
                ranges.numbers(text, refusal)
            self.assertEqual(str(caught.exception), message)

    def test_numbers_are_shown_as_they_are_read(self):
        for text in ("0", "0-2,5,7-8", "3,5-6"):
            self.assertEqual(ranges.show(ranges.numbers(text, refusal)), text)

    def test_they_are_shown_in_order_and_once_and_negative_ones_alone(self):
        shown = {(): "", (2, 1, 1): "1-2", (-1, 0, 1): "-1,0-1", (-2, -1): "-2,-1", (10, 9, -3, 0): "-3,0,9-10"}
        self.assertEqual({numbers: ranges.show(numbers) for numbers in shown}, shown)
