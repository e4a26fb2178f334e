"""Magnitude pruning with a lower fraction in the output layer, against sorting."""

import math

from models.base import Model
from pruning.mask import Mask
from pruning.test.test_base import SIZES, STUDENTS, joined, lowest, prune, toy_convolution
from testing.test_case import TestCase
from training.test.test_train import network


class TestFc19(TestCase):
    def assert_pruned(self, model: Model, mask: Mask, *groups: tuple[float, list[str]]):
        """Fails unless the smallest weights of each group are removed, the first one more than the fraction says."""
        for fraction, names in groups:
            magnitudes = joined(model.state_dict(), names).abs().tolist()
            gone = {place for place, kept in enumerate(joined(mask, names).tolist()) if not kept}
            self.assertEqual(gone, lowest(magnitudes, math.ceil(fraction * len(magnitudes)) + 1), names)

    def test_the_output_layer_is_pruned_at_half_the_fraction_and_the_others_together(self):
        model, students = network(SIZES), network(STUDENTS)
        hidden, output = ["fc_layers.0.weight", "fc_layers.1.weight"], ["fc.weight"]
        self.assert_pruned(model, prune("fc19", model, fraction=0.3), (0.3, hidden), (0.15, output))
        mask = prune("fc19", students, fraction=0.3)
        for i in range(3):
            self.assert_pruned(students.select(i), mask.select(i), (0.3, hidden), (0.15, output))

    def test_layers_can_be_pruned_separately(self):
        model = network(SIZES)
        mask = prune("fc19", model, fraction=0.3, pruning_layerwise=True)
        self.assert_pruned(model, mask, (0.3, ["fc_layers.0.weight"]), (0.3, ["fc_layers.1.weight"]), (0.15, ["fc.weight"]))

    def test_convolutions_and_the_output_layer_can_have_their_own_fractions(self):
        model = toy_convolution()
        rates = {"pruning_conv_fraction": 0.1, "pruning_output_fraction": 0.4}
        self.assert_pruned(model, prune("fc19", model, **rates), (0.4, ["fc.weight"]), (0.1, ["convolution.weight"]))
        self.assert_pruned(model, prune("fc19", model), (0.1, ["fc.weight"]), (0.2, ["convolution.weight"]))

    def test_each_step_removes_a_fraction_of_the_remaining_weights(self):
        model, mask, hidden, output = network(SIZES), None, 4 * 13 + 13 * 7, 7 * 3
        for _ in range(5):
            mask = prune("fc19", model, mask)
            hidden, output = hidden - math.ceil(0.2 * hidden) - 1, output - math.ceil(0.1 * output) - 1
            self.assertEqual((mask.unpruned, mask["fc.weight"].sum()), (hidden + output, output))
