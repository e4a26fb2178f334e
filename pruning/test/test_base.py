"""Properties of all strategies: exact counts, ignored layers, nested masks, stacks. The other tests of this package use the helpers."""

from __future__ import annotations

import math

import torch
from torch import nn

from foundations.errors import ConfigError
from models import base as models
from pruning import base, registry
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from testing.test_case import TestCase
from testing.toy_model import ToyModel
from training.test.test_train import network, regression_loader

SIZES, STUDENTS = "mlp_4_13_7_3", "students_mlp(3)_4_13_7_3"
THRESHOLDS = ("sparse_global", "fc19", "han")  # strategies that remove the weight at a threshold too


class ToyConvolution(ToyModel):
    """Images `[B, 2, 4, 4]` to 2 outputs: a convolution, a normalisation, ReLU, a mean over places, a linear layer."""

    def __init__(self):
        super().__init__(5, 2)
        self.convolution, self.norm = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.norm(self.convolution(x))).mean((2, 3)))


def toy_convolution() -> ToyConvolution:
    torch.manual_seed(0)
    return ToyConvolution().double()


def classes(count: int = 22, shape: tuple[int, ...] = (4,)) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random examples with the classes 0 and 1, in batches of 8."""
    examples = torch.randn(count, *shape, generator=torch.Generator().manual_seed(4))
    return list(zip(examples.split(8), (torch.arange(count) % 2).split(8), strict=True))


def prune(strategy: str, model: models.Model, mask: Mask | None = None, fraction: float = 0.2, seed: int = 0, **hparams) -> Mask:
    shape = (2, 4, 4) if hasattr(model, "convolution") else (4,)
    pruning_hparams = registry.get_pruning_hparams(strategy)(strategy, fraction, **hparams)
    return registry.get(pruning_hparams).prune(pruning_hparams, model, mask, classes(shape=shape), seed)


def sample() -> dict[str, models.Model]:
    return {"plain": network(SIZES), "students": network(STUDENTS), "convolution": toy_convolution()}


def lowest(scores: list[float], count: int) -> set[int]:
    """The places of the lowest scores, of equal ones the first."""
    return set(sorted(range(len(scores)), key=lambda place: scores[place])[:count])


def joined(tensors: dict[str, torch.Tensor], names: list[str] | None = None) -> torch.Tensor:
    """Tensors one after another as a vector."""
    return torch.cat([tensors[name].flatten() for name in names or tensors])


class TestEveryStrategy(TestCase):
    def test_the_number_of_remaining_weights_is_exact(self):
        for strategy in registry.registered_strategies:
            if strategy in ("fc19", "sparse_layerwise"):
                continue  # these do not compare all layers with each other
            one_more = strategy in THRESHOLDS  # which goes with the threshold
            for kind, model in sample().items():
                mask, networks = None, getattr(model, "networks", 1)
                left = Mask.ones_like(model).total // networks
                for _ in range(6):
                    with self.subTest(strategy=strategy, model=kind, left=left):
                        mask = prune(strategy, model, mask, 0.3)
                        left -= math.ceil(0.3 * left) + one_more
                        self.assertEqual(mask.unpruned, left * networks)
                        for i in range(networks if networks > 1 else 0):
                            self.assertEqual(mask.select(i).unpruned, left)

    def test_pruned_weights_stay_pruned(self):
        for strategy in registry.registered_strategies:
            for kind, model in sample().items():
                with self.subTest(strategy=strategy, model=kind):
                    first = prune(strategy, model)
                    for parameter in model.parameters():
                        parameter.data = parameter.data.flip(0)
                    second = prune(strategy, model, first, seed=1)
                    self.assertTrue(all((second[name] <= first[name]).all() for name in first))
                    self.assertLess(second.unpruned, first.unpruned)

    def test_ignored_layers_are_not_pruned_and_count_where_thresholds_are_shared(self):
        one, hidden, whole = 13 * 7, 4 * 13 + 13 * 7, 4 * 13 + 13 * 7 + 7 * 3
        for strategy in registry.registered_strategies:
            model, counted = network(SIZES), {"sparse_global": whole, "han": whole, "fc19": hidden}.get(strategy, one)
            with self.subTest(strategy=strategy):
                mask = prune(strategy, model, pruning_layers_to_ignore="fc.weight, fc_layers.0.weight")
                self.assertTrue(mask["fc.weight"].all() and mask["fc_layers.0.weight"].all())
                self.assertEqual(mask["fc_layers.1.weight"].sum(), one - math.ceil(0.2 * counted) - (strategy in THRESHOLDS))

    def test_pruning_does_not_change_the_model(self):
        for strategy in registry.registered_strategies:
            for kind, model in sample().items():
                model.eval()
                before = {name: values.clone() for name, values in model.state_dict().items()}
                with self.subTest(strategy=strategy, model=kind):
                    prune(strategy, model)
                    self.assertFalse(model.training)
                    for name, values in model.state_dict().items():
                        self.assertTrue(torch.equal(values, before[name]), name)
                    self.assertTrue(all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters()))

    def test_a_pruned_model_is_scored_like_its_inner_model(self):
        for strategy in registry.registered_strategies:
            for kind, model in sample().items():
                with self.subTest(strategy=strategy, model=kind):
                    first = prune(strategy, model)
                    expected = prune(strategy, model, first)
                    self.assertEqual(prune(strategy, PrunedModel(model, first), first), expected)

    def test_the_same_weights_give_the_same_mask(self):
        for strategy in registry.registered_strategies:
            with self.subTest(strategy=strategy):
                self.assertEqual(prune(strategy, network(SIZES), seed=3), prune(strategy, network(SIZES), seed=3))

    def test_each_student_keeps_the_weights_that_it_would_keep_alone(self):
        model = network(STUDENTS)
        for strategy in registry.registered_strategies.keys() - {"random", "erdos_renyi_kernel"}:  # chance is another for each student
            with self.subTest(strategy=strategy):
                whole = prune(strategy, model, prune(strategy, model))
                for i in range(3):
                    alone = model.select(i)
                    self.assertEqual(prune(strategy, alone, prune(strategy, alone)), whole.select(i))

    def test_only_han_does_not_rewind(self):
        rewinding = {name for name, strategy in registry.registered_strategies.items() if strategy.rewinds}
        self.assertEqual(registry.registered_strategies.keys() - rewinding, {"han"})

    def test_snip_grasp_and_synflow_score_initial_weights(self):
        untrained = {name for name, strategy in registry.registered_strategies.items() if strategy.scores_initial_weights}
        self.assertEqual(untrained, {"snip", "grasp", "synflow"})

    def test_weights_that_are_not_finite_are_refused(self):
        for strategy in registry.registered_strategies.keys() - {"random", "erdos_renyi_kernel"}:
            for value in (torch.nan, torch.inf):
                model = network(SIZES)
                model.fc_layers[0].weight.data[2, 1] = value
                with self.subTest(strategy=strategy, value=value), self.assertRaisesRegex(ConfigError, "no finite score"):
                    prune(strategy, model)

    def test_strategies_that_need_data_refuse_to_run_without_data(self):
        for strategy in ("snip", "grasp"):
            hparams = registry.get_pruning_hparams(strategy)(strategy)
            for data in (None, []):
                with self.assertRaisesRegex(ConfigError, f"--pruning_strategy: {strategy} .* but there are none"):
                    registry.get(hparams).prune(hparams, network(SIZES), data=data)

    def test_a_mask_of_another_model_is_refused(self):
        with self.assertRaisesRegex(ConfigError, "its model has"):
            prune("sparse_global", network(SIZES), Mask.ones_like(network("mlp_4_12_7_3")))


class TestCounts(TestCase):
    def problem(self, weights: int, fraction: float) -> base.Problem:
        model = ToyModel(weights, 1)
        return base.Problem(base.PruningHparams("any", fraction), model, Mask.ones_like(model), ["fc.weight"])

    def test_a_fraction_is_exactly_its_decimal_text(self):
        for fraction, weights, count in ((0.55, 100, 55), (0.07, 100, 7), (0.29, 100, 29), (0.1, 101, 11), (1e-5, 10, 1), (0.999, 10, 10)):
            self.assertEqual(self.problem(weights, fraction).removal_counts(["fc.weight"]), [count])

    def test_weights_pruned_before_do_not_count(self):
        problem = self.problem(10, 0.5)
        mask = base.prune_lowest(problem.mask, ["fc.weight"], problem.score_by_tensor({"fc.weight": torch.arange(10.0)}), [5])
        self.assertEqual(base.Problem(problem.hparams, problem.model, mask, ["fc.weight"]).removal_counts(["fc.weight"]), [3])

    def test_fractions_out_of_range_are_refused(self):
        for strategy in registry.registered_strategies:
            for fraction in (0.0, 1.0, -0.1, 1.1, float("nan")):
                with self.assertRaisesRegex(ConfigError, "--pruning_fraction: .*valid: more than 0 and less than 1"):
                    registry.get_pruning_hparams(strategy)(strategy, fraction)


class TestLowest(TestCase):
    def test_equal_scores_are_removed_in_order(self):
        generator = torch.Generator().manual_seed(0)
        for count in range(0, 31, 3):
            scores = {name: torch.randint(0, 3, (3, 5), generator=generator).double() for name in "ab"}
            left = base.prune_lowest(Mask({name: torch.ones(3, 5) for name in "ab"}), "ab", lambda name, _: scores[name].flatten(), [count])  # noqa: B023
            gone = {place for place, kept in enumerate(joined(left).tolist()) if not kept}
            self.assertEqual(gone, lowest(joined(scores).tolist(), count))

    def test_other_layers_are_not_pruned(self):
        mask = Mask({name: torch.ones(2, 2) for name in "ab"})
        left = base.prune_lowest(mask, ["b"], lambda name, _: torch.zeros(4), [3])
        self.assertEqual((left["a"].sum(), left["b"].tolist()), (4, [[False, False], [False, True]]))
        self.assertEqual(mask.unpruned, 8)


class TestLayers(TestCase):
    def layers(self, ignored: str) -> list[str]:
        return base.prunable_layers(base.PruningHparams("any", pruning_layers_to_ignore=ignored), network(SIZES))

    def test_the_error_for_an_unknown_layer_suggests_the_nearest(self):
        with self.assertRaisesRegex(ConfigError, r"_layers_to_ignore: 'fc\.weigth' .*did you mean 'fc\.weight'.*fc_layers\.0\.weight"):
            self.layers("fc_layers.0.weight,fc.weigth")
        with self.assertRaisesRegex(ConfigError, r"'fc\.bias' is not known"):
            self.layers("fc.bias")

    def test_not_all_layers_can_be_ignored(self):
        with self.assertRaisesRegex(ConfigError, "--pruning_layers_to_ignore: .* leaves nothing to prune; valid: some, but not all"):
            self.layers("fc.weight,fc_layers.0.weight,fc_layers.1.weight")


class TestData(TestCase):
    def test_no_more_batches_are_read_than_needed(self):
        taken = []

        def batches():
            for batch in classes():
                taken.append(batch)
                yield batch

        problem = base.Problem(base.PruningHparams("any"), network(SIZES), Mask.ones_like(network(SIZES)), [], batches())
        examples, labels = problem.batch(10)
        whole = [torch.cat(parts) for parts in zip(*classes(), strict=True)]
        self.assertEqual(len(taken), 2)
        self.assertTrue(torch.equal(examples, whole[0][:10].double()) and torch.equal(labels, whole[1][:10]))

    def test_all_examples_are_used_if_there_are_fewer(self):
        loader = regression_loader()
        problem = base.Problem(base.PruningHparams("any"), network(SIZES), Mask.ones_like(network(SIZES)), [], loader)
        examples, labels = problem.batch(1000)
        self.assertTrue(torch.equal(examples, loader.examples) and torch.equal(labels, loader.labels))
