"""Tables as text."""

from foundations import tables
from testing.test_case import TestCase


class TestTables(TestCase):
    def test_columns_are_as_wide_as_their_widest_cells(self):
        self.assertEqual(tables.aligned([["name", "b"], ["x", "long"], ["", "y"]]), ["name  b", "x     long", "      y"])

    def test_the_last_alignment_and_width_hold_for_all_further_columns(self):
        rows = [["a", "b", "c"], ["dd", "ee", "ff"]]
        self.assertEqual(tables.aligned(rows, "<>"), ["a    b   c", "dd  ee  ff"])
        self.assertEqual(tables.aligned(rows, "><", (4, 3)), ["   a  b    c", "  dd  ee   ff"])

    def test_the_gap_between_columns_can_be_set(self):
        self.assertEqual(tables.aligned([["a", "b"], ["cc", "d"]], gap="|"), ["a |b", "cc|d"])

    def test_no_line_ends_in_spaces(self):
        self.assertEqual(tables.aligned([["a", ""], ["b", "c"], ["", ""]]), ["a", "b  c", ""])

    def test_a_table_may_be_empty(self):
        self.assertEqual(tables.aligned([]), [])
        self.assertEqual(tables.aligned([[], []]), [])

    def test_rows_of_different_lengths_are_an_error(self):
        with self.assertRaises(ValueError):
            tables.aligned([["a", "b"], ["c"]])
