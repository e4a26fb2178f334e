"""The page of an extraction, written from prepared files."""

from __future__ import annotations

import base64
import json
import os
from html.parser import HTMLParser

from extraction.desc import ExtractionDesc
from extraction.reporting import page, verdict
from extraction.test import test_report
from extraction.test.test_report import report
from foundations import paths
from foundations.errors import ConfigError
from platforms.platform import get_platform
from platforms.system import provenance
from testing.test_case import TestCase

HOSTILE = "</pre><script>alert('$title')</script>\"&.npz"
PICTURES = ["student_losses", "dendrogram_1", "dendrogram_10", "dendrogram_2", "teacher_alignment_1", "weights_1"]


class Reader(HTMLParser):
    """Reads a page: its text except the style, its tags, and the sources of its pictures."""

    def __init__(self, page_text: str):
        super().__init__()
        self.texts, self.tags, self.sources, self.captions = [], [], [], []
        self.feed(page_text)
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        if tag == "img":
            self.sources.append(values["src"])
            self.captions.append(values["alt"])
        assert not {"href", "onload", "onerror"} & values.keys()

    def handle_data(self, data):
        if self.tags and self.tags[-1] != "style":
            self.texts.append(data)


class TestPage(TestCase):
    def setUp(self):
        super().setUp()
        desc = ExtractionDesc.default_for("students_digits_lenet")
        self.students, self.location = self.root, os.path.join(self.root, "clustering")
        get_platform().write(paths.hparams_dict(self.students), desc.to_json(seed=3))
        changed = desc.extraction_hparams.to_dict() | {"gamma": 0.45}
        get_platform().write(paths.hparams_dict(self.location, "extraction_"), json.dumps(changed))
        for name in PICTURES:
            get_platform().write(os.path.join(paths.plots(self.location), f"{name}.png"), name.encode())

    def page(self, **changes) -> Reader:
        page.write(self.location, self.students, report(**changes))
        with open(paths.page(self.location), encoding="utf-8") as file:
            return Reader(file.read())

    def test_the_page_begins_with_the_verdict(self):
        found = self.page()
        headline = found.texts.index("IDENTIFIED")
        (rest,) = verdict.of(report()).reasons
        self.assertLess(headline, found.texts.index(rest))
        self.assertLess(found.texts.index(rest), found.texts.index("Layer by layer"))

    def test_the_page_has_a_table_of_the_layers(self):
        found = self.page()
        for cell in (cell for row in verdict.rows(report()) for cell in row):
            self.assertIn(cell, found.texts)

    def test_the_page_names_the_file_of_answers(self):
        self.assertNotIn("file of answers", self.page().texts)
        desc = ExtractionDesc.default_for("students_digits_lenet")
        desc.dataset_hparams.teacher_file = HOSTILE
        get_platform().write(paths.hparams_dict(self.students), desc.to_json(seed=3))
        self.assertEqual(self.page().text.count(HOSTILE), 2)  # at the top, and among the hyperparameters

    def test_the_page_says_how_long_the_students_were_trained_in_the_end(self):
        for names, expected in ((["ep21_it9"], False), (["ep21_it9", "ep40_it0"], True)):
            for name in names:
                get_platform().write(os.path.join(self.students, f"model_{name}.pth"), b"weights")
            self.assertEqual("trained_steps" in self.page().texts, expected)
        self.assertIn("40ep", self.page().texts)

    def test_pictures_are_in_the_order_of_the_page_and_of_the_layers(self):
        found = self.page()
        names = [base64.b64decode(source.removeprefix("data:image/png;base64,")).decode() for source in found.sources]
        order = ["weights_1", "student_losses", "dendrogram_1", "dendrogram_2", "dendrogram_10", "teacher_alignment_1"]
        self.assertEqual(names, order)
        self.assertTrue(found.captions[4].startswith("Hidden layer 10. "))
        self.assertIn("teacher's weights and the recovered ones", found.captions[0])

    def test_unmet_requirements_of_the_certificate_are_marked(self):
        figures = test_report.content()["certificate"] | {"rank": 1209, "disagreement": None, "accepted": False}
        text = self.page(certificate=figures).text
        for said in ("✗ 1,209 of 1,210", "✗ not examined", "✓ 4.0e-14", "It is not accepted", "100%", "at most 1e-11", "more than 1,210"):
            self.assertIn(said, " ".join(text.split()))
        self.assertNotIn("✗", self.page().text)

    def test_every_check_of_the_certificate_is_explained(self):
        text = " ".join(self.page().text.split())
        for check in report().certificate.checks:
            self.assertIn(check.title, text)
            self.assertIn(check.meaning, text)

    def test_chosen_hyperparameters_come_before_defaults(self):
        texts = self.page().texts
        split = next(place for place, text in enumerate(texts) if text.endswith("at their defaults"))
        for name, value, chosen in (("gamma", "0.45", True), ("model_name", "students_digits_lenet(10)_64", True), ("beta", "6.0", False)):
            place = texts.index(name)
            self.assertEqual((texts[place + 1], place < split), (value, chosen))

    def test_the_command_is_shown_and_external_text_is_escaped(self):
        with provenance.command_line(["extract", "--teacher_name", HOSTILE]):
            provenance.record(self.location, 3)
        with provenance.command_line(["extract", "--gamma=0.5"]):
            provenance.record(self.students, 3)
        found = self.page(model_name=HOSTILE, seconds={HOSTILE: 1.0}, act_fun=HOSTILE)
        self.assertIn(provenance.read(self.location)["command"], found.texts)
        self.assertIn("python EC.py extract --gamma=0.5", found.texts)
        self.assertIn(HOSTILE, found.texts)
        self.assertNotIn("script", found.tags)

    def test_a_run_without_provenance_has_a_page(self):
        self.assertIn("before provenance was recorded", self.page().text)

    def test_without_the_teacher_the_page_names_the_unknown_values(self):
        layers = [{**layer, "teacher_width": None, "matched": None, "max_weight_error": None} for layer in test_report.content()["layers"]]
        found = self.page(identified=None, max_relative_error=None, layers=layers)
        self.assertIn("IDENTIFIED exactly", found.texts)
        self.assertIn("The true weights are unknown", found.text)
        self.assertNotIn("teacher", found.captions[0])

    def test_the_error_names_damaged_hyperparameters(self):
        for path in (paths.hparams_dict(self.students), paths.hparams_dict(self.location, "extraction_")):
            with open(path) as file:
                whole = file.read()
            for content in ("", "[]", "{}", whole[:-5]):
                get_platform().write(path, content)
                if content != "{}" or path == paths.hparams_dict(self.students):
                    with self.assertRaisesRegex(ConfigError, "is damaged .*to start again$"):
                        self.page()
            get_platform().write(path, whole)
