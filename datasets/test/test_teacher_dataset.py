"""Answers of networks, files of answers, and finding a teacher by its hash."""

import io
import json
import os
import shutil
import struct
import zipfile
from unittest import mock

import numpy as np
import torch

from datasets import digits, registry, teacher_dataset
from datasets.teachers import answer_files, run_folders, stored_answers
from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from platforms.platform import get_platform
from testing import toy_teacher
from testing.test_case import TestCase


class NetworkTest(TestCase):
    def setUp(self):
        super().setUp()
        self.name, self.network = toy_teacher.make("mlp_3_4_2", "tanh", seed=5)

    def dataset(self, datagen: str = "random:20", train: bool = True, seed: int = 1) -> teacher_dataset.Dataset:
        return registry.get(DatasetHparams("teacher", 8, self.name, 5, datagen), train, seed).dataset

    def test_answers_are_the_outputs_of_the_network_in_float64(self):
        weights = {name: value.numpy() for name, value in self.network.state_dict().items()}
        for train in (True, False):
            dataset = self.dataset(train=train)
            hidden = np.tanh(dataset.examples.double().cpu().numpy() @ weights["fc_layers.0.weight"].T + weights["fc_layers.0.bias"])
            expected = hidden @ weights["fc.weight"].T + weights["fc.bias"]
            self.assertEqual(dataset.labels.dtype, torch.float64)
            np.testing.assert_allclose(dataset.labels.cpu().numpy(), expected, rtol=1e-13, atol=1e-14)

    def test_the_answers_to_many_queries_are_in_the_order_of_the_queries(self):
        dataset = self.dataset(f"random:{run_folders.CHUNK + 3}")
        with torch.no_grad():
            expected = self.network(dataset.examples.double().cpu())
        torch.testing.assert_close(dataset.labels.cpu(), expected, rtol=1e-13, atol=1e-14)

    def test_training_and_test_have_no_common_queries(self):
        seen = {tuple(query) for query in self.dataset().examples.tolist()}
        self.assertTrue(seen.isdisjoint(tuple(query) for query in self.dataset(train=False).examples.tolist()))

    def test_queries_depend_on_the_seed_of_the_run(self):
        queries = [self.dataset(seed=seed).examples for seed in (1, 1, 2)]
        self.assertTrue(torch.equal(queries[0], queries[1]))
        self.assertFalse(torch.equal(queries[0], queries[2]))

    def test_mosaic_queries_vary_the_images_that_the_teacher_was_trained_on(self):
        self.name, _ = toy_teacher.make("mlp_64_4_10", seed=5)
        images = torch.cat([digits.Dataset.load(train)[0] for train in (True, False)]).flatten(1)
        queries = self.dataset("mosaic:30").examples.cpu()
        self.assertEqual(queries.shape, (30, 64))
        self.assertTrue(all(torch.isin(values, images[:, place]).all() for place, values in enumerate(queries.T)))

    def test_computing_answers_does_not_change_the_global_random_state(self):
        before = torch.get_rng_state()
        self.dataset()
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_a_teacher_whose_training_has_not_finished_is_refused(self):
        os.remove(paths.logger(run_folders.location_of(self.name, 5)))
        with self.assertRaisesRegex(ConfigError, "--teacher_name: the run in .* has not finished"):
            self.dataset()

    def test_a_teacher_with_a_truncated_file_of_weights_is_refused(self):
        path = os.path.join(run_folders.location_of(self.name, 5), "model_ep1_it0.pth")
        os.truncate(path, os.path.getsize(path) // 2)
        with self.assertRaisesRegex(ConfigError, path):
            self.dataset()


class FindTest(TestCase):
    def setUp(self):
        super().setUp()
        self.names = [toy_teacher.make("mlp_3_4_2", act_fun, seed=5)[0] for act_fun in ("tanh", "relu")]

    def twin(self, name: str) -> str:
        """A copy of a run whose hash differs in the last digit only."""
        other = name[:-1] + ("0" if name[-1] != "0" else "1")
        shutil.copytree(os.path.join(self.root, name), os.path.join(self.root, other))
        return other

    def test_a_hash_is_found_with_or_without_its_prefix_train(self):
        for name in self.names:
            self.assertEqual(run_folders.find(name, 5).name, name)
            self.assertEqual(run_folders.find(name.removeprefix("train_"), 5).name, name)

    def test_a_unique_prefix_is_enough(self):
        for name in self.names:
            self.assertEqual(run_folders.find(name.removeprefix("train_")[:8], 5).name, name)

    def test_a_teacher_has_its_sizes_activation_function_and_dataset(self):
        teacher = run_folders.find(self.names[0], 5)
        self.assertEqual(teacher.dataset_name, "digits")
        self.assertEqual((teacher.inputs, teacher.outputs, teacher.model_hparams.act_fun), (3, 2, "tanh"))

    def test_an_ambiguous_prefix_is_refused_with_all_matching_runs(self):
        other = self.twin(self.names[0])
        with self.assertRaises(ConfigError) as caught:
            run_folders.find(self.names[0][:-1], 5)
        self.assertIn("2 runs", str(caught.exception))
        for name in (self.names[0], other):
            self.assertIn(name, str(caught.exception))

    def test_a_full_hash_is_never_ambiguous(self):
        other = self.twin(self.names[0])
        self.assertEqual(run_folders.find(other, 5).name, other)

    def test_a_copy_of_a_run_makes_no_hash_ambiguous(self):
        name = self.names[0]
        for copy in (f"{name}_old", f"{name}.bak", f"{name} (copy)"):
            shutil.copytree(os.path.join(self.root, name), os.path.join(self.root, copy))
        for text in (name, name.removeprefix("train_"), name[:14], name[6:14]):
            self.assertEqual(run_folders.find(text, 5).name, name)
        self.assertEqual(run_folders.find(f"{name}_old", 5).name, f"{name}_old")
        shutil.rmtree(os.path.join(self.root, name))
        with self.assertRaisesRegex(ConfigError, "3 runs under .* begin with it"):
            run_folders.find(name, 5)

    def test_an_empty_hash_is_refused(self):
        shutil.rmtree(os.path.join(self.root, self.names[1]))
        for name in ("", "train_"):
            with self.assertRaises(ConfigError):
                run_folders.find(name, 5)

    def test_an_unknown_hash_is_refused_with_the_valid_forms(self):
        with self.assertRaisesRegex(ConfigError, "'xyz' is not a teacher .*; valid: a hash, the name of a model or a file of answers"):
            run_folders.find("xyz", 5)

    def test_a_wrong_seed_is_refused_with_the_existing_seeds(self):
        with self.assertRaisesRegex(ConfigError, f"--teacher_seed: {self.names[0]} has no seed 6; valid: 5$"):
            run_folders.find(self.names[0], 6)

    def test_damaged_hyperparameters_of_a_teacher_are_named(self):
        path = paths.hparams_dict(run_folders.location_of(self.names[0], 5))
        with open(path) as file:
            record = json.load(file)
        model = record["model_hparams"]
        wrong = [{"shape": shape} for shape in ([3], [3, 2, 1], [4, 2], [3, 3], ["3", 2], [3.0, 2], [3, -2], None)]
        wrong += [{"model_hparams": model | change} for change in ({"model_name": 3}, {"model_name": "mlp_9_9_9"}, {"output_frozen": "no"})]
        wrong += [{"model_hparams": model | {"model_name": "mlp_9999999999_9999999999_2"}}, {"dataset_hparams": []}]
        for content in ("{", "[]", '{"shape": [3, 2]}', "[" * 100_000, *(json.dumps(record | change) for change in wrong)):
            get_platform().write(path, content)
            with self.assertRaisesRegex(ConfigError, f"{path} is damaged"):
                run_folders.find(self.names[0], 5)


class FileTest(TestCase):
    queries, answers = np.random.RandomState(0).randn(23, 3), np.random.RandomState(1).randn(23, 2)

    def file(self, name: str = "answers.npz", save=np.savez, **arrays) -> str:
        path = os.path.join(self.root, name)
        save(path, **arrays)
        return path

    def loader(self, path: str, train: bool):
        """Stores the content of a file under its resolved name and reads the stored file, as a run does."""
        teacher, content = stored_answers.inspect_answers(path)
        get_platform().write(stored_answers.answers_path(teacher.name), content)
        return registry.get(DatasetHparams("teacher", 5, teacher.name), train, dtype=torch.float64)

    def assert_refused(self, path: str, *words: str):
        with self.assertRaises(ConfigError) as caught:
            stored_answers.inspect_answers(path)
        for word in (path, *words):
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_every_tenth_pair_belongs_to_the_test_set(self):
        path = self.file(X=self.queries, y=self.answers)
        held_out = [9, 19]
        kept = [place for place in range(23) if place not in held_out]
        for train, places in ((True, kept), (False, held_out)):
            loader = self.loader(path, train)
            np.testing.assert_array_equal(loader.examples.cpu().numpy(), self.queries[places])
            np.testing.assert_array_equal(loader.labels.cpu().numpy(), self.answers[places])

    def test_a_compressed_file_is_read(self):
        path = self.file(save=np.savez_compressed, X=self.queries, y=self.answers)
        np.testing.assert_array_equal(self.loader(path, train=False).examples.cpu().numpy(), self.queries[[9, 19]])

    def test_images_are_flattened_and_single_answers_make_a_column(self):
        teacher, _ = stored_answers.inspect_answers(self.file(X=np.random.RandomState(2).randn(10, 3, 4), y=np.arange(10)))
        self.assertEqual((teacher.inputs, teacher.outputs), (12, 1))

    def test_the_name_depends_on_the_content_only(self):
        path = self.file(X=self.queries, y=self.answers)
        copy = shutil.copy(path, os.path.join(self.root, "copy.npz"))
        other = self.file("other.npz", X=self.queries, y=self.answers + 1)
        names = [stored_answers.inspect_answers(one)[0].name for one in (path, copy, other)]
        self.assertEqual(names[0], names[1])
        self.assertNotEqual(names[0], names[2])

    def test_a_run_reads_the_stored_copy_if_the_original_file_is_gone(self):
        path = self.file(X=self.queries, y=self.answers)
        teacher, content = stored_answers.inspect_answers(path)
        get_platform().write(stored_answers.answers_path(teacher.name), content)
        os.remove(path)
        self.assertEqual(registry.shape(DatasetHparams("teacher", 5, teacher.name)), (3, 2))

    def test_a_file_has_no_model_and_no_dataset(self):
        teacher, _ = stored_answers.inspect_answers(self.file(X=self.queries, y=self.answers))
        self.assertEqual((teacher.model_hparams, teacher.dataset_name), (None, None))

    def test_a_missing_file_is_named(self):
        self.assert_refused(os.path.join(self.root, "nowhere.npz"), "does not exist")

    def test_both_arrays_are_required(self):
        self.assert_refused(self.file("x.npz", y=self.answers), "must contain arrays X and y", "X")
        self.assert_refused(self.file("y.npz", X=self.queries), "must contain arrays X and y", "y")

    def test_values_must_be_finite(self):
        for bad in (np.nan, np.inf):
            for name in ("X", "y"):
                arrays = {"X": self.queries.copy(), "y": self.answers.copy()}
                arrays[name][4, 1] = bad
                self.assert_refused(self.file(**arrays), "not finite", f"row 4, column 1 (counted from 0: {bad})", "leave out this row")
                arrays[name][7:9, 1] = bad
                self.assert_refused(self.file(**arrays), "3 values", "all of them are in column 1", "leave out these 3 rows, or the column")

    def test_different_numbers_of_queries_and_answers_are_refused(self):
        self.assert_refused(self.file(X=self.queries, y=self.answers[:-1]), "23 queries X and 22 answers y")

    def test_fewer_than_ten_pairs_are_refused(self):
        self.assert_refused(self.file(X=self.queries[:9], y=self.answers[:9]), "10 or more")
        self.assertEqual(len(self.loader(self.file(X=self.queries[:10], y=self.answers[:10]), train=False).dataset), 1)

    def test_a_constant_column_is_allowed_but_one_column_must_vary(self):
        for name, why in (("X", "all queries are the same"), ("y", "no information about the network")):
            arrays = {"X": self.queries.copy(), "y": self.answers.copy()}
            arrays[name][:, 1] = 0.5
            self.assertEqual(len(self.loader(self.file(**arrays), train=False).dataset), 2)
            arrays[name][:] = 0.5
            self.assert_refused(self.file(**arrays), f"all columns of {name}", "are constant", why)

    def test_a_truncated_file_is_refused(self):
        path = self.file(X=self.queries, y=self.answers)
        with open(path, "rb") as file:
            content = file.read()
        for length in (0, 1, len(content) // 2, len(content) - 1):
            get_platform().write(path, content[:length])
            self.assert_refused(path, "damaged")

    def test_a_file_with_a_wrong_checksum_is_refused(self):
        path = self.file(X=self.queries, y=self.answers)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 3)
            file.write(b"\xff\xff\xff")
        self.assert_refused(path, "damaged")

    def test_a_file_of_pickled_objects_is_refused(self):
        self.assert_refused(self.file(X=np.array([{}] * 10, dtype=object), y=np.zeros(10)), "not an .npz file of numbers")

    def test_a_file_of_strings_is_refused(self):
        self.assert_refused(self.file(X=np.array(["a"] * 10), y=np.zeros(10)), "not an .npz file of numbers")

    def test_another_kind_of_file_is_refused(self):
        path = os.path.join(self.root, "text.npz")
        get_platform().write(path, "X,y\n1,2\n")
        self.assert_refused(path, "not an .npz file of numbers")

    def test_headers_that_claim_too_large_arrays_allocate_no_memory(self):
        for shape in ((10**15, 3), (10**9, 10**9), (-1, 3), (24, 3)):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
            path = os.path.join(self.root, "boast.npz")
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("X.npy", header.getvalue() + self.queries.tobytes())
                archive.writestr("y.npy", header.getvalue() + self.answers.tobytes())
            self.assert_refused(path, f"shape {shape}")

    def test_arrays_larger_than_the_memory_are_refused_before_they_are_unpacked(self):
        path = self.file(save=np.savez_compressed, X=np.zeros((1000, 1000)), y=self.answers)
        with (
            mock.patch("platforms.base.Platform.memory_bytes", 4096 * 1000),
            mock.patch("numpy.lib.format.read_array", side_effect=AssertionError),
        ):
            self.assert_refused(path, "X of shape (1000, 1000) is too large for the memory")
            os.truncate(path, 4096 * 1000 + 1)
            self.assert_refused(path, "it is too large for the memory")

    def test_a_member_without_the_suffix_npy_is_not_read(self):
        """numpy prefers a member `X` to the member `X.npy`."""
        path = self.file(X=self.queries, y=self.answers)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("X", b"\x93NUMPY")
        queries = answer_files.read_stored(path).queries
        self.assertEqual(queries.tolist(), self.queries.tolist())

    def test_invalid_headers_are_refused(self):
        answers = io.BytesIO()
        np.save(answers, self.answers)
        code = b"{'descr': __import__('os').system('touch sprung')}"
        for version, text in ((1, b"(" * 9999), (1, b"{'a':" * 999), (2, b"{'a':" * 999), (1, code), (3, b"{}")):
            path = os.path.join(self.root, "header.npz")
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(
                    "X.npy", b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text
                )
                archive.writestr("y.npy", answers.getvalue())
            self.assert_refused(path, "not an .npz file of numbers")

    def test_pipes_and_devices_are_refused(self):
        path = os.path.join(self.root, "pipe.npz")
        os.mkfifo(path)
        self.assert_refused(path, "not a regular file")
        os.remove(path)
        os.symlink("/dev/zero", path)
        self.assert_refused(path, "not a regular file")

    def test_stored_answers_that_have_changed_are_refused(self):
        teacher, _ = stored_answers.inspect_answers(self.file(X=self.queries, y=self.answers))
        kept = stored_answers.answers_path(teacher.name)
        np.savez(kept, X=self.queries, y=self.answers + 1)
        for read in (teacher_dataset.Dataset.shape, lambda hparams: teacher_dataset.Dataset.create(hparams, True, 0)):
            with self.assertRaisesRegex(ConfigError, f"^{kept} is damaged"):
                read(DatasetHparams("teacher", 5, teacher.name))
