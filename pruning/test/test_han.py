"""The thresholds of Han et al., recovered from the mask."""

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
                before, mask = mask, prune("han", model, mask, 0.3)
                gone, stayed = [], []
                for name, left in mask.items():
                    weights, candidates = model.state_dict()[name], torch.ones_like(left) if before is None else before[name]
                    quality = weights.abs() / weights[candidates].numpy().std()
                    gone.append(quality[candidates & ~left])
                    stayed.append(quality[left])
                self.assertLess(torch.cat(gone).max(), torch.cat(stayed).min())

    def test_the_scale_of_a_layer_does_not_matter(self):
        model, scaled = network(SIZES), network(SIZES)
        scaled.fc_layers[0].weight.data *= 1000
        self.assertEqual(prune("han", model, fraction=0.4), prune("han", scaled, fraction=0.4))
        self.assertNotEqual(prune("sparse_global", model, fraction=0.4), prune("sparse_global", scaled, fraction=0.4))

    def test_a_layer_with_equal_weights_is_pruned_last(self):
        model = network(SIZES)
        model.fc.weight.data.fill_(1e-3)
        mask = prune("han", model, fraction=0.8)
        self.assertTrue(mask["fc.weight"].all())
