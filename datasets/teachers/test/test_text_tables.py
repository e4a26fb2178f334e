"""Tables of numbers in text files, as pandas, numpy and people write them."""

import unittest

import numpy as np

from datasets.teachers import text_tables

VALUES = np.random.RandomState(0).randn(12, 3) * [1, 1e-9, 1e12]
ROWS = [",".join(map(repr, row)) for row in VALUES.tolist()]  # the shortest texts that give the same numbers, as pandas writes them


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def numbered(rows, first: int = 0) -> list[str]:
    return [f"{place},{row}" for place, row in enumerate(rows, first)]


class TestParse(unittest.TestCase):
    def test_the_numbers_are_read_to_the_last_bit_whatever_is_around_them(self):
        contents = {
            "bare": lines(*ROWS),
            "names": lines("a,b,c", *ROWS),
            "names with underscores": lines("x_1,x_2,y_1", *ROWS),
            "names of pandas": lines("0,1,2", *ROWS),
            "names of two frames of pandas": lines("0,1,0", *ROWS),
            "index of pandas": lines(",a,b,c", *numbered(ROWS)),
            "index and names of pandas": lines(",0,1,2", *numbered(ROWS)),
            "an index read and written again": lines("Unnamed: 0,a,b,c", *numbered(ROWS)),
            "an index written twice": lines(",Unnamed: 0,a,b,c", *(f"{place},{row}" for place, row in enumerate(numbered(ROWS)))),
            "an index of texts": lines(",a,b,c", *(f"row_{row}" for row in numbered(ROWS))),
            "a column that counts from 1": lines("id,a,b,c", *numbered(ROWS, 1)),
            "header of numpy": lines("# a,b,c", *ROWS),
            "remark": lines("# made by me", *ROWS),
            "remark and header of numpy": lines("# made by me", "# a,b,c", *ROWS),
            "Windows": b"\xef\xbb\xbf" + lines("a,b,c", *ROWS).replace(b"\n", b"\r\n"),
            "quotes": lines('"a","b, in m","c"', *('"' + row.replace(",", '","') + '"' for row in ROWS)),
            "blank lines": lines("", "a,b,c", "", *ROWS, " ", ""),
            "no end of line": lines(*ROWS).rstrip(),
            "spaces": lines("a, b, c", *(row.replace(",", " , ") for row in ROWS)),
            "17 digits": lines(*(",".join(f"{value:.17e}" for value in row) for row in VALUES)),
            "a name in Latin-1": "µ,b,c\n".encode("latin-1") + lines(*ROWS),
        }
        for name, content in contents.items():
            with self.subTest(name):
                np.testing.assert_array_equal(text_tables.parse(content, ",").values, VALUES)

    def test_tabs_separate_values_as_well(self):
        table = text_tables.parse(lines("a,b,c", *ROWS).replace(b",", b"\t"), "\t")
        np.testing.assert_array_equal(table.values, VALUES)
        self.assertEqual(table.names, ("a", "b", "c"))

    def test_whatever_is_left_out_is_in_the_note(self):
        cases = {
            lines(",a,b,c", *numbered(ROWS)): "the first column has no name: it is taken as the labels of the rows and left out",
            lines("id,a,b,c", *numbered(ROWS)): "column id counts the rows and is left out",
            lines("0,1,2", *ROWS): "line 1 is taken as the names of the columns",
            lines("t,a,b,c", *numbered(ROWS)): "column t counts the rows; it is kept as an input",
            lines("a,b,c", *ROWS): "",
        }
        for content, note in cases.items():
            self.assertEqual(text_tables.parse(content, ",").note, note)

    def test_rows_of_whole_numbers_are_no_names(self):
        for rows in (["0,1", "1,0", "0,1"], ["0", "1", "2"], ["3,1.5", "2,1.5"], ["0,1,1", "0.5,1,2"]):
            self.assertEqual(len(text_tables.parse(lines(*rows), ",").values), len(rows))

    def test_a_column_named_id_that_does_not_count_is_kept(self):
        self.assertEqual(text_tables.parse(lines("id,b", "3,1.5", "1,2.5"), ",").values.tolist(), [[3, 1.5], [1, 2.5]])

    def test_other_files_are_refused_with_the_place_and_the_remedy(self):
        cases = [
            (lines("a;b", "1,5;2"), "separated by semicolons; save it with commas and decimal points"),
            (lines("1.5;2", "3;4"), "separated by semicolons"),
            (lines("1.5\t2", "3\t4"), "separated by tabs; name it .tsv"),
            (lines("1.5 2", "3 4"), "separated by spaces; save it with commas"),
            (lines("a,b", '"1,5",2'), "line 2, column a contains '1,5', which has a decimal comma; save it with decimal points"),
            (lines("a,b", "1,2", "3,setosa"), "line 3, column b contains 'setosa', not a number; valid: numbers"),
            (lines("a,b", "1,2", "3,True"), "line 3, column b contains 'True', a truth value; save true and false as 1 and 0"),
            (lines("1.5,setosa", "2.5,virginica"), "line 1, column 2 contains 'setosa', not a number"),
            (lines("a,b", '"1,234.5",2'), "line 2, column a contains '1,234.5', which has commas between thousands"),
            (lines("a,b", "12%,2"), "line 2, column a contains '12%', a percentage"),
            (lines("a,b", "2024-01-31,2"), "line 2, column a contains '2024-01-31', a date"),
            (lines("a|b", "1|2", "3|4"), "separated by vertical bars"),
            (lines("a,b,", "1,2,", "3,4,"), "the last column is empty, because every line ends in a separator; remove it"),
            (lines("a,b", "1,2", "3,1_000"), "line 3, column b contains '1_000', not a number"),
            (lines("a,b", "1,2", "3,", "NA,nan"), "3 cells contain no number, the first in line 3, column b; leave out their rows"),
            (lines(",a,b", "x,1,", "y,2,3"), "a cell contains no number: line 2, column b; leave out its row"),
            (lines("a,b", "", "1,2,3"), "line 3 has 3 values, not 2"),
            (lines("a,b"), "it contains no rows"),
            (b"", "it contains no rows"),
            ("a,b\n1,2\n".encode("utf-16"), "it is not UTF-8 text"),
        ]
        for content, said in cases:
            with self.subTest(said), self.assertRaises(ValueError) as caught:
                text_tables.parse(content, ",")
            self.assertIn(said, str(caught.exception))

    def test_commas_in_a_tsv_file_are_refused(self):
        with self.assertRaisesRegex(ValueError, "separated by commas; name it .csv"):
            text_tables.parse(lines(*ROWS), "\t")
