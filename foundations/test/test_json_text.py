"""JSON texts: null in place of numbers that JSON does not have."""

import json
import math
import unittest

from foundations import json_text


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is not in RFC 8259")


class JsonTextTest(unittest.TestCase):
    def test_numbers_that_json_lacks_are_null_at_every_depth(self):
        content = {"a": math.nan, "b": [1.5, math.inf, (-math.inf, {"c": math.nan})], "d": {"e": -math.inf}, "f": "NaN"}
        expected = {"a": None, "b": [1.5, None, [None, {"c": None}]], "d": {"e": None}, "f": "NaN"}
        for indent in (None, 2):
            self.assertEqual(json.loads(json_text.dumps(content, indent), parse_constant=refuse), expected)

    def test_other_content_is_as_the_json_module_writes_it(self):
        content = {"a": [1, 2.5, True, None, "ü"], "b": {"c": 1e308}, "d": 5e-324}
        self.assertEqual(json_text.dumps(content, 2), json.dumps(content, indent=2))

    def test_values_of_other_types_are_refused(self):
        for content in ({1, 2}, [math.nan, b"x"]):
            with self.assertRaises(TypeError):
                json_text.dumps(content)

    def test_null_and_the_constants_of_earlier_versions_are_numbers(self):
        parsed = [json_text.number(value) for value in json.loads("[null, NaN, Infinity, 3, 0.5]")]
        self.assertTrue(math.isnan(parsed[0]) and math.isnan(parsed[1]))
        self.assertEqual(parsed[2:], [math.inf, 3.0, 0.5])
        for value in ("1", True, [1.0]):
            with self.assertRaises(TypeError):
                json_text.number(value)
