"""The language of selections."""

from __future__ import annotations

from cli.runs import index, query
from foundations.errors import ConfigError
from testing import run_folders
from testing.test_case import TestCase


class TestQuery(TestCase):
    def setUp(self):
        super().setUp()
        rows = ((0.01, "relu", 0, 0.9), (0.01, "tanh", 1, 0.8), (0.1, "tanh", 2, 0.95), (1.0, "relu", 3, 0.2))
        for lr, act_fun, seed, accuracy in rows:
            run_folders.train_run(self.root, run_folders.training(lr, act_fun), seed, accuracy)
        run_folders.extract_run(self.root, run_folders.extraction(run_folders.training().hashname), 4)
        self.runs = index.scan(self.root)

    def seeds(self, where: str) -> list[int]:
        return sorted(run.seed for run in query.select(self.runs, where))

    def test_expressions_select_the_runs_that_satisfy_them(self):
        expected = {
            "lr<0.1": [0, 1, 4],
            "lr <= 1e-1 and act_fun=tanh": [1, 2],
            "act_fun=tanh or lr=1": [1, 2, 3],
            "act_fun=tanh and lr=0.1 or seed=0": [0, 2],
            "act_fun=tanh and (lr=0.1 or seed=1)": [1, 2],
            "not act_fun=tanh and not (seed>=3)": [0],
            "NOT lr=1 AND kind=train": [0, 1, 2],
            "test_accuracy>=0.9": [0, 2],
            "kind != train": [4],
            "identified=true": [4],
            "identified!=true": [0, 1, 2, 3],
            "identified=yes": [4],
            "identified=no": [],
            "accepted!=no": [0, 1, 2, 3, 4],
            "do_not_augment=no": [0, 1, 2, 3, 4],
            "do_not_augment=No and act_fun=no": [],
            "do_not_augment='no'": [],
            "teacher=none": [0, 1, 2, 3],
            "teacher=train_": [4],
            "teacher_name=none": [0, 1, 2, 3],
            "model_name~STUDENTS": [4],
            "model_name=students_digits_lenet(10)_64": [4],
            '(model_name="students_digits_lenet(10)_64")': [4],
            "act_fun='tanh'": [1, 2],
            "state=finished and date>2000-01-01": [0, 1, 2, 3, 4],
            "date<2000": [],
            "gamma=0.7": [4],
            "do_not_augment=false": [0, 1, 2, 3, 4],
            "size>0 and size<1e9": [0, 1, 2, 3, 4],
        }
        for where, seeds in expected.items():
            with self.subTest(where=where):
                self.assertEqual(self.seeds(where), seeds)

    def test_students_have_their_own_learning_rate(self):
        self.assertEqual(self.seeds("lr=0.02"), [4])

    def test_a_hash_equals_its_prefixes(self):
        digits = next(run for run in self.runs if run.seed == 2).name.removeprefix("train_")
        self.assertEqual(self.seeds(f"hash={digits[:8]}"), [2])
        self.assertEqual(self.seeds(f"hash!={digits}"), [0, 1, 3, 4])

    def test_no_finds_the_runs_whose_value_is_false(self):
        run_folders.extract_run(self.root, run_folders.extraction("train_0", gamma=0.5), 5, identified=False)
        self.runs = index.scan(self.root)
        for word in ("no", "false", "NO"):
            self.assertEqual(self.seeds(f"accepted={word}"), [5])
            self.assertEqual(self.seeds(f"identified!={word} and kind=extract"), [4])
            self.assertEqual(self.seeds(f"accepted_to_precision={word}"), [5])  # older reports have no such figure

    def test_a_teacher_is_found_by_its_file_its_name_and_its_hash(self):
        desc = run_folders.extraction("answers_12ab")
        desc.dataset_hparams.teacher_file = "my answers.csv"
        run_folders.extract_run(self.root, desc, 5)
        self.runs = index.scan(self.root)
        for where in (
            "teacher='my answers.csv'",
            "teacher=answers_12ab",
            "teacher=12a",
            "teacher~answers.csv",
            "teacher='a b/my answers.csv'",
        ):
            self.assertEqual(self.seeds(where), [5], where)
        self.assertEqual(self.seeds("teacher='my'"), [])

    def test_errors_are_one_line_with_the_reason(self):
        errors = {
            "lrr<1": "'lrr' is not a hyperparameter.*did you mean 'lr'",
            "test_acuracy>1": "did you mean 'test_accuracy'",
            "lr": "one of = != < <= > >= ~ is expected at the end",
            "lr<": "a value is expected at the end",
            "lr<<1": "a value is expected before '<1'",
            "lr<fast": "'fast' is not a number",
            "lr=1 and": "a name is expected at the end",
            "(lr=1": r"`\)` is expected at the end",
            "lr=1)": "the end is expected before '\\)'",
            "lr=1 lr=2": "`and`, `or` or the end is expected before 'lr=2'.*values with spaces stand in quotes",
            "state=finish": "'finish' is not known, did you mean 'finished'",
            "kind=trian": "did you mean 'train'",
            "(" * 10_000: "nested too deeply",
            "not " * 10_000: "nested too deeply",
            "__import__('os')": "is not a hyperparameter",
        }
        for where, message in errors.items():
            with self.subTest(where=where[:30]), self.assertRaisesRegex(ConfigError, f"^--where: .*{message}") as caught:
                query.parse(where, self.runs)
            self.assertNotIn("\n", str(caught.exception))

    def test_rows_are_sorted_and_those_without_a_value_come_last(self):
        rows = query.group(self.runs)
        accuracy = [
            row.value("seed") for row in query.sort_rows(rows, "test_accuracy", self.runs) if row.value("test_accuracy") is not None
        ]
        self.assertEqual(accuracy, [3, 1, 0, 2])
        falling = [row.value("seed") for row in query.sort_rows(rows, "test_accuracy:desc", self.runs)]
        self.assertEqual(falling, [2, 0, 1, 3, 4])
        self.assertEqual([row.value("seed") for row in query.sort_rows(rows, "-test_accuracy", self.runs)], falling)
        self.assertEqual([row.value("seed") for row in query.sort_rows(rows, "lr,test_accuracy", self.runs)], [1, 0, 4, 2, 3])
        self.assertEqual(query.sort_rows(rows, "max_relative_error", self.runs)[0].value("seed"), 4)
        with self.assertRaisesRegex(ConfigError, "--sort: .*did you mean 'lr'"):
            query.sort_rows(rows, "lrr", self.runs)
        with self.assertRaisesRegex(ConfigError, "--sort: 'down' is not known"):
            query.sort_rows(rows, "lr:down", self.runs)

    def test_differing_hyperparameters_are_those_with_several_values(self):
        trained = [run for run in self.runs if run.kind == "train"]
        self.assertEqual(query.differing(trained), ["act_fun", "lr"])
        self.assertEqual(query.differing(trained[:1]), [])
        one, other = ({"lr": 1, "samples": 3, "act_fun": "g"}, {"lr": 2, "samples": 4, "act_fun": "g"})
        self.assertEqual(query.name_differences(one, other), ["lr"])
