"""Files of queries and answers in all formats."""

import hashlib
import io
import os

import numpy as np

from datasets import registry
from datasets.teachers import answer_files, stored_answers
from datasets.teachers.answer_files import Layout
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from platforms.platform import get_platform
from testing.test_case import TestCase

QUERIES, ANSWERS = np.random.RandomState(0).randn(20, 3), np.random.RandomState(1).randn(20, 2)


class AnswerFileTestCase(TestCase):
    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def write(self, name: str, *rows: str) -> str:
        get_platform().write(self.path(name), "\n".join(rows) + "\n")
        return self.path(name)

    def npz(self, name: str = "it.npz", **arrays: object) -> str:
        np.savez(self.path(name), **arrays)
        return self.path(name)

    def npy(self, name: str, values: np.ndarray) -> str:
        np.save(self.path(name), values)
        return self.path(name)

    def csv(self, name: str, *arrays: np.ndarray, header: str = "") -> str:
        np.savetxt(self.path(name), np.column_stack(arrays), delimiter="\t" if name.endswith("tsv") else ",", header=header)
        return self.path(name)

    def assert_refused(self, name: str, said: str, **layout: object):
        with self.assertRaises(ConfigError) as caught:
            stored_answers.inspect_answers(name, Layout(**layout))
        self.assertIn(said, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))


class FormatTest(AnswerFileTestCase):
    def test_all_formats_of_the_same_numbers_give_the_same_teacher_and_the_same_pairs(self):
        table = np.c_[QUERIES, ANSWERS]
        sources = [
            (self.npz("it.npz", inputs=QUERIES, targets=ANSWERS), Layout("inputs,targets")),
            (self.npz("positional.npz", arr_0=QUERIES, arr_1=ANSWERS), Layout("arr_0, arr_1")),
            (self.npz("single.npz", data=table), Layout("data", 2)),
            (self.npy("table.npy", table), Layout(outputs=2)),
            (self.csv("table.csv", table), Layout(outputs=2)),
            (self.csv("table.CSV", table, header="a,b,c,u,v"), Layout(outputs=2)),
            (self.csv("table.tsv", table), Layout(outputs=2)),
            (f"{self.npy('q.npy', QUERIES)}+{self.npy('a.npy', ANSWERS.astype('>f8'))}", Layout()),
            (f"{self.path('q.npy')},{self.path('a.npy')}", Layout()),
            (f"{self.csv('q.csv', QUERIES)}+{self.path('a.npy')}", Layout()),
        ]
        names = set()
        for name, layout in sources:
            with self.subTest(name):
                self.assertTrue(answer_files.is_file(name))
                teacher, content = stored_answers.inspect_answers(name, layout)
                self.assertEqual((teacher.inputs, teacher.outputs, teacher.count), (3, 2, 20))
                with np.load(io.BytesIO(content)) as stored:
                    np.testing.assert_array_equal(stored["X"], QUERIES)
                    np.testing.assert_array_equal(stored["y"], ANSWERS)
                names.add(teacher.name)
        self.assertEqual(len(names), 1)

    def test_a_run_reads_what_was_stored(self):
        teacher, content = stored_answers.inspect_answers(self.csv("table.csv", QUERIES, ANSWERS), Layout(outputs=2))
        get_platform().write(stored_answers.answers_path(teacher.name), content)
        dataset = registry.get(DatasetHparams("teacher", 5, teacher.name), train=False).dataset
        np.testing.assert_array_equal(dataset.examples.cpu().numpy(), QUERIES[[9, 19]])
        np.testing.assert_array_equal(dataset.labels.cpu().numpy(), ANSWERS[[9, 19]])

    def test_an_archive_with_x_and_y_is_stored_as_it_is(self):
        path = self.npz(X=QUERIES, y=ANSWERS, more=np.zeros(3))
        with open(path, "rb") as file:
            content = file.read()
        for layout in (Layout(), Layout("X,y")):
            teacher, stored = stored_answers.inspect_answers(path, layout)
            self.assertEqual((teacher.name, stored), (f"answers_{hashlib.md5(content).hexdigest()}", content))

    def test_the_number_type_of_the_file_is_stored(self):
        path = self.npz(inputs=QUERIES, targets=ANSWERS.astype(np.float32))
        with np.load(io.BytesIO(stored_answers.inspect_answers(path, Layout("inputs,targets"))[1])) as stored:
            self.assertEqual((stored["X"].dtype, stored["y"].dtype), (np.float64, np.float32))

    def test_the_bytes_of_a_converted_file_are_always_the_same(self):
        """They name runs, so that they may not change with the version of the program."""
        content = answer_files.archive(np.arange(4.0).reshape(2, 2), np.arange(2.0))
        self.assertEqual(hashlib.md5(content).hexdigest(), "af767595cbf63deca273b58168416c9f")

    def test_a_file_whose_name_contains_a_plus_or_a_comma_is_one_file(self):
        for name in ("a+b.npz", "a.npy+b.npz", "a,b.npz"):
            self.assertEqual(answer_files.split(self.npz(name, X=QUERIES, y=ANSWERS)), [self.path(name)])

    def test_names_of_models_and_hashes_are_no_files(self):
        for name in ("digits_lenet_16", "1f9aac2d", "train_1f9aac2d.bak", "mlp_5_8_2", "", "."):
            self.assertFalse(answer_files.is_file(name), name)

    def test_the_label_is_the_name_without_folders(self):
        labels = {
            "a/b.csv": "b.csv",
            "~/x.npz": "x.npz",
            "/a/q.npy+/b/y.npy": "q.npy+y.npy",
            "a\n.npz": "a .npz",
            "\udcff.npz": "\ufffd.npz",
        }
        for name, label in labels.items():
            self.assertEqual(answer_files.label(name), label)


class RefusalTest(AnswerFileTestCase):
    def test_the_arrays_of_a_file_are_listed(self):
        path = self.npz(targets=ANSWERS, inputs=QUERIES)
        listed = "targets [20, 2], inputs [20, 3]"
        self.assert_refused(path, f"must contain arrays X and y, or --arrays inputs,targets; it contains {listed}")
        self.assert_refused(path, f"--arrays: {path} contains no array 'labels'; valid: {listed}", arrays="inputs,labels")
        for arrays in ("inputs", "inputs,targets,more", "inputs,inputs", ""):
            self.assert_refused(path, f"valid: two names, first the queries; {path} contains {listed}", arrays=arrays)
        self.assert_refused(path, "valid: one name with --outputs", arrays="inputs,targets", outputs=1)
        self.assert_refused(path, "--outputs: valid for a single array", outputs=1)
        many = self.npz("many.npz", **{f"a{place}": QUERIES for place in range(30)})
        self.assert_refused(many, "a11 [20, 3], ...")
        self.assert_refused(self.npz("meta.npz", meta=np.array({})), "it contains meta []")

    def test_a_table_needs_the_number_of_its_answers(self):
        path = self.csv("table.csv", QUERIES, ANSWERS, header="a,b,c,u,v")
        self.assert_refused(path, f"--outputs is required with {path}: how many of its 5 columns (a, b, c, u, v), counted from the last")
        self.assert_refused(path, "--outputs: 5 is out of range; valid: 1 to 4", outputs=5)
        self.assert_refused(path, "--arrays: valid only with a .npz file", arrays="X,y")
        self.assert_refused(self.npy("y.npy", ANSWERS[:, 0]), "has a single column", outputs=1)

    def test_of_two_files_each_is_a_table(self):
        pair = f"{self.npy('q.npy', QUERIES)}+{self.npy('a.npy', ANSWERS)}"
        self.assert_refused(pair, "--outputs: valid only with one file", outputs=2)
        self.assert_refused(pair, "--arrays: valid only with one file", arrays="X,y")
        self.assert_refused(f"{self.path('q.npy')}+{self.path('none.npy')}", "none.npy does not exist")
        self.assert_refused(f"{self.npz(X=QUERIES)}+{self.path('a.npy')}", "it.npz cannot be one of two files")
        self.assert_refused(f"{self.path('q.npy')}+{self.npy('a.npy', ANSWERS[:-1])}", "20 queries q.npy and 19 answers a.npy")
        self.assert_refused(f"{self.path('q.npy')}+{self.npy('a.npy', ANSWERS * 0)}", "all columns of a.npy in")

    def test_other_formats_are_refused_with_those_that_can_be_read(self):
        for name in ("a.txt", "a.xlsx", "a.parquet", "a.pkl", "a.pt", "a.mat"):
            self.assert_refused(name, f"{name} cannot be read; valid: a .npz file, a table (.csv, .tsv or .npy)")
        self.assert_refused("a.csv.gz", "valid: unpack it, then use a .npz file")
        self.assert_refused(self.write("notes", "1,2"), "notes cannot be read; valid: a .npz file")

    def test_damaged_tables_are_refused(self):
        path = self.npy("q.npy", np.c_[QUERIES, ANSWERS])
        os.truncate(path, os.path.getsize(path) - 1)
        self.assert_refused(path, "q.npy is not a table of numbers: the array of shape (20, 5) and type float64 does not have", outputs=2)
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
        self.assert_refused(path, "is not a table of numbers: the array contains objects (type object)", outputs=2)
        self.assert_refused(self.write("t.csv", "a,b", "1,x"), "t.csv is not a table of numbers: line 2, column b contains 'x'", outputs=1)

    def test_answers_that_are_classes_are_refused(self):
        places = np.arange(20)
        cases = [
            (places % 4, "the column of answers in {} contains only the whole numbers 0, 1, 2, 3: classes; the answers must be"),
            (places % 2 * 2 - 1, "whole numbers -1, 1: classes"),
            (places % 2 == 0, "whole numbers 0, 1: classes"),
            (np.eye(4)[places % 4], "the answers in {} are classes in one-hot form"),
            (np.c_[ANSWERS, places % 3], "column 2 of the answers in {} contains only"),
            (
                np.array(["a", "b"] * 10),
                "contains texts (type <U1); valid: real numbers; the answers must be the numbers that the network gives",
            ),
            (
                np.array(["a", "b"] * 10, dtype=object),
                "contains objects (type object); valid: real numbers; the answers must be the numbers",
            ),
        ]
        for answers, said in cases:
            path = self.npz(X=QUERIES, y=answers)
            self.assert_refused(path, said.format(path))

    def test_answers_that_are_whole_numbers_by_rounding_are_accepted(self):
        answers = np.round(100 * ANSWERS)
        self.assertEqual(stored_answers.inspect_answers(self.npz(X=QUERIES, y=answers))[0].outputs, 2)

    def test_classes_that_an_older_version_has_stored_stay_usable(self):
        path = self.npz(X=QUERIES, y=np.arange(20) % 4)
        with open(path, "rb") as file:
            content = file.read()
        stored = stored_answers.answers_path(f"answers_{hashlib.md5(content).hexdigest()}")
        with open(stored, "wb") as file:
            file.write(content)
        self.assertEqual(stored_answers.inspect_answers(path)[0].outputs, 1)


class CommandTest(AnswerFileTestCase):
    def train(self, *flags: str) -> tuple[int, str, str]:
        given = ("--dataset_name=teacher", "--training_steps=1it", "--global_seed=1")
        return self.command("train", "--default_hparams=mlp_3_4_2", *given, *flags)

    def test_runs_show_the_name_of_the_file(self):
        table = self.csv("mine.csv", QUERIES, ANSWERS, header="id,b,c,u,v")
        rows = [f"{place},{','.join(map(str, row))}" for place, row in enumerate(np.c_[QUERIES, -ANSWERS].tolist())]
        other = self.write("other.csv", ",0,1,2,3,4", *rows)
        self.assertEqual(self.train(f"--teacher_name={table}", "--outputs=2")[0], 0)
        status, out, err = self.train(f"--teacher_name={other}", "--outputs=2")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Note: other.csv: line 1 is taken as the names of the columns; the first column has no name", out)
        names = {"mine.csv": self.found("teacher=mine.csv"), "other.csv": self.found("teacher!=mine.csv")}
        listing = self.command("runs")[1]
        for name, found in names.items():
            self.assertIn(name, found)
            self.assertEqual(found.count("\n"), 2)
            self.assertIn(name, listing)
        self.assertNotIn("answers_", listing)
        digest = hashlib.md5(answer_files.archive(QUERIES, ANSWERS)).hexdigest()
        for where in (f"teacher=answers_{digest}", f"teacher={digest[:8]}", "teacher~mine", f"teacher_name=answers_{digest}"):
            self.assertEqual(self.found(where), names["mine.csv"], where)
        run = next(name for name in os.listdir(self.root) if name.startswith("train_"))
        self.assertRegex(self.command("runs", "show", run)[1], r"\* teacher_file +(mine|other).csv\n")

    def found(self, where: str) -> str:
        return self.command("runs", "--where", where, "--columns=hash,teacher")[1]

    def test_flags_of_files_are_refused_where_there_is_no_file(self):
        for flag in ("--arrays=a,b", "--outputs=1", "--teacher_file=x"):
            name = flag.partition("=")[0]
            status, _, err = self.train("--teacher_name=digits_lenet_16", "--datagen=random:20", flag)
            self.assertEqual((status, err.count("\n")), (2, 1))
            self.assertIn(f"{name}: valid only with a file of answers as teacher, not with digits_lenet_16", err)
            status, _, err = self.command("train", "--default_hparams=digits_lenet_4", flag)
            self.assertEqual(status, 2)
            self.assertIn(f"{name}: valid only with --dataset_name teacher", err)
        self.assertEqual(self.files(), [])
