"""Masks: accepted values, counts and files."""

from __future__ import annotations

import json
import os
from unittest import mock

import numpy as np
import torch
from torch import nn

from foundations import paths
from foundations.errors import ConfigError
from models import base
from platforms.platform import get_platform
from pruning.mask import Mask
from testing.test_case import TestCase
from testing.toy_model import ToyModel


def some_mask() -> Mask:
    """21 weights in two layers, neither size a multiple of 8; 11 weights remain."""
    first = torch.arange(15).reshape(5, 3) % 2
    return Mask({"a.weight": first, "b.weight": torch.tensor([[1, 1, 0], [0, 1, 1]])})


class TestContent(TestCase):
    def test_nothing_is_pruned_of_a_new_mask(self):
        model = ToyModel(3, 2)
        model.convolution, model.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        shapes = {name: tuple(values.shape) for name, values in Mask.ones_like(model).items()}
        self.assertEqual(shapes, {"fc.weight": (2, 3), "convolution.weight": (4, 2, 3, 3)})
        self.assertEqual(Mask.ones_like(model).density, 1.0)

    def test_zeros_and_ones_of_any_dtype_are_accepted(self):
        values = [[1, 0], [0, 1]]
        formats = [torch.tensor(values, dtype=dtype) for dtype in (torch.bool, torch.int32, torch.float64)]
        for given in (*formats, np.array(values), np.array(values, dtype=bool)):
            taken = Mask({"fc.weight": given})["fc.weight"]
            self.assertEqual((taken.dtype, taken.tolist()), (torch.bool, [[True, False], [False, True]]))

    def test_other_values_are_refused(self):
        for value in (2.0, 0.5, -1.0, float("nan")):
            with self.assertRaisesRegex(ConfigError, r"fc\.weight.*other than 0 and 1"):
                Mask({"fc.weight": torch.tensor([1.0, value])})

    def test_a_mask_without_layers_is_refused(self):
        with self.assertRaisesRegex(ConfigError, "one layer or more"):
            Mask({})

    def test_weights_are_counted(self):
        made = some_mask()
        self.assertEqual((made.total, made.unpruned), (21, 11))
        self.assertAlmostEqual(made.density, 11 / 21)

    def test_masks_with_equal_values_are_equal(self):
        changed = some_mask()["b.weight"].clone()
        changed[0, 0] = False
        self.assertEqual(some_mask(), some_mask())
        self.assertNotEqual(some_mask(), Mask({**some_mask(), "b.weight": changed}))
        self.assertNotEqual(some_mask(), Mask({"a.weight": some_mask()["a.weight"]}))

    def test_a_student_can_be_selected(self):
        stack = torch.tensor([[[1, 0]], [[0, 1]]])
        self.assertEqual(Mask({"fc.weight": stack}).select(1), Mask({"fc.weight": stack[1:]}))


class TestFit(TestCase):
    def test_a_mask_of_the_model_fits(self):
        Mask.ones_like(ToyModel()).check_fits(ToyModel())

    def test_a_mask_of_another_model_is_refused(self):
        ones = torch.ones(2, 3)
        with self.assertRaisesRegex(ConfigError, r"'fc\.weigth' is not known, did you mean 'fc\.weight'"):
            Mask({"fc.weigth": ones}).check_fits(ToyModel())
        with self.assertRaisesRegex(ConfigError, r"\[3, 2\] for fc\.weight; its model has \[2, 3\]"):
            Mask({"fc.weight": ones.T}).check_fits(ToyModel())
        larger = ToyModel()
        larger.more = nn.Linear(2, 2)
        with self.assertRaisesRegex(ConfigError, r"lacks the layer more\.weight"):
            Mask({"fc.weight": ones}).check_fits(larger)


class TestFile(TestCase):
    def test_a_saved_mask_can_be_loaded(self):
        location = os.path.join(self.root, "level_1")
        self.assertFalse(Mask.exists(location))
        some_mask().save(location)
        self.assertTrue(Mask.exists(location))
        self.assertEqual(Mask.load(location), some_mask())
        self.assertEqual(self.files(), ["level_1/mask.pth", "level_1/sparsity_report.json"])

    def test_the_report_has_the_numbers_of_all_and_of_remaining_weights(self):
        some_mask().save(self.root)
        with open(os.path.join(self.root, "sparsity_report.json")) as file:
            self.assertEqual(json.load(file), {"total": 21, "unpruned": 11})

    def test_the_file_has_one_bit_per_weight(self):
        Mask({"fc.weight": torch.ones(1000, 800)}).save(self.root)
        self.assertLess(os.path.getsize(paths.mask(self.root)), 1.05 * 1000 * 800 / 8)

    def test_the_report_is_written_before_the_mask(self):
        written = get_platform().write

        def write_one(path, content):
            written(path, content)
            raise KeyboardInterrupt

        with mock.patch.object(type(get_platform()), "write", staticmethod(write_one)), self.assertRaises(KeyboardInterrupt):
            some_mask().save(self.root)
        self.assertEqual(self.files(), ["sparsity_report.json"])

    def test_a_missing_file_is_named(self):
        with self.assertRaisesRegex(ConfigError, r"mask\.pth does not exist"):
            Mask.load(self.root)

    def test_a_damaged_file_is_refused_in_one_line(self):
        some_mask().save(self.root)
        with open(paths.mask(self.root), "rb") as file:
            content = file.read()
        bits, shape = torch.zeros(2, dtype=torch.uint8), [5, 3]
        wrong = [{}, [1], {"a": 1}, {"a": torch.ones(2)}, {"a": {"shape": shape}}, {"a": {"shape": shape, "bits": bits[:1]}}]
        wrong += [{"a": {"shape": shape, "bits": bits.int()}}, {"a": {"shape": [-5, -3], "bits": bits}}, {"a": {"shape": 15, "bits": bits}}]
        wrong += [{"a": {"shape": ["x"], "bits": bits}}, {"a": {"shape": shape, "bits": [0, 0]}}]
        for damaged in (content[:0], content[:100], content[:-1], bytes(1000), *map(base.to_bytes, wrong)):
            with open(paths.mask(self.root), "wb") as file:
                file.write(damaged)
            with self.assertRaises(ConfigError) as caught:
                Mask.load(self.root)
            self.assertIn(paths.mask(self.root), str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
