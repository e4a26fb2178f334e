"""Layer-wise magnitude pruning against sorting, layer by layer."""

import math

from models.base import Model
from pruning.mask import Mask
from pruning.test.test_base import SIZES, STUDENTS, lowest, prune, toy_convolution
from testing.test_case import TestCase
from training.test.test_train import network


class TestFc19(TestCase):
    def assert_pruned(self, model: Model, mask: Mask, fractions: list[float]):
        networks = getattr(model, "networks", 1)
        for (name, left), fraction in zip(mask.items(), fractions, strict=True):
            magnitudes = model.state_dict()[name].abs().view(networks, -1).tolist()
            for kept, row in zip(left.view(networks, -1), magnitudes, strict=True):
                self.assertEqual(set((~kept).nonzero().flatten().tolist()), lowest(row, math.ceil(fraction * len(row))))

    def test_the_output_layer_is_pruned_at_half_the_fraction(self):
        for model in (network(SIZES), network(STUDENTS)):
            self.assert_pruned(model, prune("fc19", model, fraction=0.3), [0.3, 0.3, 0.15])

    def test_half_of_a_tenth_is_a_twentieth(self):
        model = network("mlp_4_10_10")
        self.assert_pruned(model, prune("fc19", model, fraction=0.1), [0.1, 0.05])

    def test_convolutions_and_the_output_layer_can_have_their_own_fractions(self):
        model = toy_convolution()
        rates = {"pruning_conv_fraction": 0.1, "pruning_output_fraction": 0.4}
        self.assert_pruned(model, prune("fc19", model, **rates), [0.4, 0.1])
        self.assert_pruned(model, prune("fc19", model), [0.1, 0.2])

    def test_each_step_removes_a_fraction_of_the_remaining_weights_of_each_layer(self):
        model, mask = network(SIZES), None
        left = {name: values.numel() for name, values in Mask.ones_like(model).items()}
        for _ in range(5):
            mask = prune("fc19", model, mask)
            for name in mask:
                left[name] -= math.ceil(left[name] * (0.1 if name == "fc.weight" else 0.2))
                self.assertEqual(mask[name].sum(), left[name])
