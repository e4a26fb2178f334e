"""Steps as text: their canonical form, and their limit."""

from foundations import step
from foundations.errors import ConfigError
from testing.test_case import TestCase


class TestText(TestCase):
    def test_texts_of_one_step_have_one_canonical_text(self):
        texts = {
            "40ep": ("40ep", "040ep", "40ep0it", "0040ep000it"),
            "500it": ("500it", "0500it", "0ep500it"),
            "3ep20it": ("3ep20it", "03ep020it"),
            "0ep": ("0ep", "0it", "0ep0it", "00ep"),
        }
        for canonical, variants in texts.items():
            self.assertEqual({step.canonical(text) for text in variants}, {canonical})

    def test_milestones_are_sorted_and_kept_if_they_occur_twice(self):
        self.assertEqual(step.canonical_list("120ep,080ep"), "80ep,120ep")
        self.assertEqual(step.canonical_list("500it,040it,1ep500it"), "40it,500it,1ep500it")
        self.assertEqual(step.canonical_list("01ep,500it,1ep0it"), "1ep,500it,1ep")

    def test_the_canonical_texts_of_openlth_are_unchanged(self):
        for text in ("160ep", "80ep,120ep", "30ep,60ep,80ep", "500it", "3ep20it"):
            self.assertEqual(step.canonical_list(text), text)

    def test_a_step_that_takes_years_is_out_of_range(self):
        self.assertEqual(step.parse("1000000000000it"), (0, 10**12))
        for text in ("1000000000001it", f"1{30 * '0'}ep", f"3ep{5000 * '9'}it"):
            with self.assertRaisesRegex(ConfigError, r"^--steps: .{,90} is out of range; valid: up to 1,000,000,000,000 epochs"):
                step.parse(text, "--steps")
        self.assertEqual(step.parse(f"{5000 * '0'}7ep"), (7, 0))
