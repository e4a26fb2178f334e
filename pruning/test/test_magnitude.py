"""What the strategies with thresholds know about the levels of an experiment."""

import torch

from foundations.model_hparams import ModelHparams
from models import registry as models
from models.base import Model
from pruning import registry
from pruning.hparams import PruningHparams
from pruning.mask import Mask
from pruning.test.test_base import SIZES, STUDENTS, THRESHOLDS, prune
from testing.test_case import TestCase
from training.test.test_train import network


def hparams(strategy: str, fraction: float = 0.2, ignored: str | None = None) -> PruningHparams:
    return registry.get_pruning_hparams(strategy)(strategy, fraction, pruning_layers_to_ignore=ignored)


class TestLastLevel(TestCase):
    def last_level(self, strategy: str, model: Model, levels: int, ignored: str | None = None) -> int:
        chosen = hparams(strategy, ignored=ignored)
        return registry.get(chosen).last_level(chosen, model, levels)

    def test_it_is_the_last_level_that_can_be_pruned(self):
        for strategy in THRESHOLDS:
            for name in (SIZES, STUDENTS):
                for ignored in (None, "fc_layers.0.weight"):
                    model, mask = network(name), None
                    last = self.last_level(strategy, model, 100, ignored)
                    self.assertEqual(self.last_level(strategy, model, 3, ignored), 3)
                    with self.subTest(strategy=strategy, model=name, ignored=ignored, last=last):
                        for _ in range(last):
                            mask = prune(strategy, model, mask, pruning_layers_to_ignore=ignored)
                        with self.assertRaisesRegex(Exception, "cannot be pruned again"):
                            prune(strategy, model, mask, pruning_layers_to_ignore=ignored)

    def test_strategies_with_exact_counts_have_none(self):
        self.assertEqual(self.last_level("random", network(SIZES), 1000), 1000)

    def test_a_model_on_the_meta_device_is_enough(self):
        outline = models.meta_model(ModelHparams("mnist_lenet_300_100", "kaiming_normal", "uniform"))
        self.assertEqual(self.last_level("sparse_global", outline, 100, "fc.weight"), 24)  # then 1,250 are left, 1,000 of them ignored


class TestSurplus(TestCase):
    def surplus(self, strategy: str, model: Model, before: Mask, after: Mask) -> int:
        return registry.get(hparams(strategy)).surplus(hparams(strategy), model, before, after)

    def test_masks_of_this_version_have_none(self):
        for strategy in (*THRESHOLDS, "sparse_layerwise", "random"):
            for name in (SIZES, STUDENTS):
                model = network(name)
                first = prune(strategy, model)
                with self.subTest(strategy=strategy, model=name):
                    self.assertEqual(self.surplus(strategy, model, Mask.ones_like(model), first), 0)
                    self.assertEqual(self.surplus(strategy, model, first, prune(strategy, model, first)), 0)

    def test_more_removed_weights_than_expected_are_none(self):
        model = network(SIZES)
        model.fc_layers[1].weight.data.fill_(1e-9)  # they are equal, and all are removed
        self.assertEqual(self.surplus("sparse_global", model, Mask.ones_like(model), prune("sparse_global", model)), 0)

    def test_weights_that_an_earlier_version_kept_are_counted_in_each_network(self):
        model = network(STUDENTS)
        whole, mask = Mask.ones_like(model), prune("sparse_global", model)
        kept = mask["fc_layers.1.weight"].clone()
        for student in (1, 2):
            kept[student].view(-1)[(~kept[student]).flatten().nonzero()[0]] = True
        self.assertEqual(self.surplus("sparse_global", model, whole, Mask({**mask, "fc_layers.1.weight": kept})), 2)
        kept[0] = False  # which makes up for nothing
        self.assertEqual(self.surplus("sparse_global", model, whole, Mask({**mask, "fc_layers.1.weight": torch.as_tensor(kept)})), 2)
