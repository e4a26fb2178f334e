"""The methods of all models, and reading files of weights safely."""

import io
import os
import warnings
import zipfile
from unittest import mock

import torch
from torch import nn

from foundations.errors import ConfigError
from foundations.step import Step
from models import base
from testing.test_case import TestCase
from testing.toy_model import ToyModel


class Intruder:
    """An object that files of weights must not contain."""


class ModelTest(TestCase):
    def test_a_model_is_saved_under_the_name_of_the_step(self):
        ToyModel().save(os.path.join(self.root, "run"), Step.from_epoch(3, 20, 100))
        self.assertEqual(self.files(), ["run/model_ep3_it20.pth"])

    def test_saved_weights_are_read_back_bit_for_bit(self):
        model = ToyModel()
        model.save(self.root, Step.zero(1))
        state = base.read_state(os.path.join(self.root, "model_ep0_it0.pth"))
        self.assertEqual(list(state), ["fc.weight", "fc.bias"])
        for name, value in model.state_dict().items():
            self.assertTrue(torch.equal(state[name], value))

    def test_kernels_of_linear_and_convolutional_layers_are_prunable(self):
        model = ToyModel()
        model.convolution, model.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.assertEqual(model.prunable_layer_names, ["fc.weight", "convolution.weight"])

    def test_the_loss_for_targets_is_the_mean_squared_error(self):
        outputs, targets = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [3.0, 7.0]])
        self.assertAlmostEqual(ToyModel().loss_criterion(outputs, targets).item(), (1 + 0 + 0 + 9) / 4)

    def test_the_loss_for_classes_is_the_cross_entropy(self):
        outputs, labels = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([0, 1])
        expected = (torch.tensor(1.0).exp().log1p() + torch.tensor(4.0).exp().log1p()) / 2
        self.assertAlmostEqual(ToyModel().loss_criterion(outputs, labels).item(), expected.item(), places=6)


class ReadStateTest(TestCase):
    @property
    def path(self) -> str:
        return os.path.join(self.root, "state.pth")

    def write(self, content: bytes):
        with open(self.path, "wb") as file:
            file.write(content)

    def assert_refused(self, words: str):
        with self.assertRaises(ConfigError) as caught:
            base.read_state(self.path)
        self.assertIn(self.path, str(caught.exception))
        self.assertIn(words, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_plain_values_and_tensors_are_read_back(self):
        self.write(base.to_bytes({"a": torch.arange(3), "b": [1, 2.5, "c", None, True]}))
        state = base.read_state(self.path)
        self.assertEqual((state["a"].tolist(), state["b"]), ([0, 1, 2], [1, 2.5, "c", None, True]))

    def test_a_missing_file_is_named(self):
        self.assert_refused("does not exist")

    def test_a_file_truncated_anywhere_is_refused(self):
        content = base.to_bytes(ToyModel().state_dict())
        for length in (0, 1, 100, len(content) // 2, len(content) - 1):
            self.write(content[:length])
            self.assert_refused("damaged or truncated")

    def test_a_file_that_holds_an_object_of_any_class_is_refused(self):
        self.write(base.to_bytes({"fc.weight": torch.zeros(2, 3), "fc.bias": Intruder()}))
        self.assert_refused("damaged")

    def test_a_file_of_zeros_is_refused(self):
        self.write(bytes(1000))
        self.assert_refused("damaged")

    def archive(self, compression: int, *entries: tuple[str, bytes]) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", compression) as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return made.getvalue()

    def test_a_change_of_any_bit_is_detected(self):
        content = base.to_bytes({"a": torch.zeros(100)})
        place = content.index(bytes(400))
        for bit in range(8):
            self.write(content[: place + 100] + bytes([1 << bit]) + content[place + 101 :])
            self.assert_refused("checksum")

    def test_an_archive_with_entries_larger_than_the_file_is_not_unpacked(self):
        state = zipfile.ZipFile(io.BytesIO(base.to_bytes({"a": torch.zeros(10**6)})))
        self.write(self.archive(zipfile.ZIP_DEFLATED, *((name, state.read(name)) for name in state.namelist())))
        with mock.patch.object(torch, "load", side_effect=AssertionError):
            self.assert_refused("its entries are larger than the file")

    def test_a_tensor_larger_than_its_storage_is_refused(self):
        self.write(base.to_bytes({"state": [{"a": torch.zeros(1).expand(10**12)}]}))
        self.assert_refused("[1000000000000] is larger than its storage")

    def test_sparse_and_meta_tensors_are_refused(self):
        for tensor in (torch.zeros(3).to_sparse(), torch.zeros(3, device="meta")):
            self.write(base.to_bytes({"a": tensor}))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.assert_refused("damaged")

    def test_shared_nested_values_are_checked_once(self):
        twice = []
        for _ in range(60):
            twice = [twice, twice]
        self.write(base.to_bytes({"a": twice, "b": torch.ones(1)}))
        self.assertEqual(base.read_state(self.path)["b"], 1)

    def test_files_of_older_versions_of_torch_are_read(self):
        torch.save({"a": torch.arange(3)}, self.path, _use_new_zipfile_serialization=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's reader uses what torch has deprecated
            self.assertEqual(base.read_state(self.path)["a"].tolist(), [0, 1, 2])
        os.truncate(self.path, os.path.getsize(self.path) // 2)
        self.assert_refused("damaged")

    def test_a_path_that_cannot_be_read_is_named_with_the_reason(self):
        os.mkdir(self.path)
        self.assert_refused("cannot be read (Is a directory)")
