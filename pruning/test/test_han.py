"""The thresholds of Han et al., recovered from the mask; `testing/ancestors/test_masks.py` has those of the published code."""

import torch

from pruning.test.test_base import SIZES, STUDENTS, prune
from testing.test_case import TestCase
from training.test.test_train import network


class TestHan(TestCase):
    def test_one_quality_parameter_separates_removed_from_kept_weights(self):
        for model in (network(SIZES), network(STUDENTS).select(2)):
            model.fc.weight.data *= 50
            mask = None
            for _ in range(3):
                before, mask = mask, prune("han", model, mask, 0.3, pruning_relative=True)
                gone, stayed = [], []
                for name, left in mask.items():
                    weights, candidates = model.state_dict()[name], torch.ones_like(left) if before is None else before[name]
                    quality = weights.abs() / weights[candidates].numpy().std()
                    gone.append(quality[candidates & ~left])
                    stayed.append(quality[left])
                self.assertLess(torch.cat(gone).max(), torch.cat(stayed).min())

    def test_the_scale_of_a_layer_does_not_matter_if_magnitudes_are_relative(self):
        model, scaled = network(SIZES), network(SIZES)
        scaled.fc_layers[0].weight.data *= 1000
        for relative in (True, False):
            masks = [prune("han", each, fraction=0.4, pruning_relative=relative) for each in (model, scaled)]
            self.assertEqual(masks[0] == masks[1], relative)

    def test_a_layer_with_equal_weights_is_pruned_last(self):
        model = network(SIZES)
        model.fc.weight.data.fill_(1e-3)
        mask = prune("han", model, fraction=0.8, pruning_relative=True)
        self.assertTrue(mask["fc.weight"].all())
