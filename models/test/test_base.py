"""What every model can do, and what may be read back."""

import os

import torch
from torch import nn

from foundations.errors import ConfigError
from foundations.step import Step
from models import base
from testing.test_case import TestCase
from testing.toy_model import ToyModel


class Intruder:
    """An object that a file of weights has no business to hold."""


class ModelTest(TestCase):
    def test_it_is_saved_under_the_name_of_the_step(self):
        ToyModel().save(os.path.join(self.root, "run"), Step.from_epoch(3, 20, 100))
        self.assertEqual(self.files(), ["run/model_ep3_it20.pth"])

    def test_what_is_saved_is_read_back_bit_for_bit(self):
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

    def test_plain_values_and_tensors_come_back(self):
        self.write(base.to_bytes({"a": torch.arange(3), "b": [1, 2.5, "c", None, True]}))
        state = base.read_state(self.path)
        self.assertEqual((state["a"].tolist(), state["b"]), ([0, 1, 2], [1, 2.5, "c", None, True]))

    def test_a_missing_file_is_named(self):
        self.assert_refused("does not exist")

    def test_a_file_cut_short_anywhere_is_refused(self):
        content = base.to_bytes(ToyModel().state_dict())
        for length in (0, 1, 100, len(content) // 2, len(content) - 1):
            self.write(content[:length])
            self.assert_refused("damaged or cut short")

    def test_a_file_that_holds_an_object_of_any_class_is_refused(self):
        self.write(base.to_bytes({"fc.weight": torch.zeros(2, 3), "fc.bias": Intruder()}))
        self.assert_refused("damaged")

    def test_a_file_of_zeros_is_refused(self):
        self.write(bytes(1000))
        self.assert_refused("damaged")
