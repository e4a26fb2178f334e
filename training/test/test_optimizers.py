"""Optimizers against those of torch in a plain loop, and the learning rate against closed forms."""

import bisect
import functools
import itertools
import math

import torch

from foundations.errors import ConfigError
from foundations.step import Step
from training import optimizers
from training.plan import Plan
from training.test.test_train import (
    BATCHES,
    TrainTestCase,
    batches,
    hparams,
    network,
    plain_network,
    plain_training,
    regression_loader,
    weights,
)
from training.train import train


class OptimizerTest(TrainTestCase):
    def assert_trains_like(self, reference, optimizer_name: str = "sgd", **changes):
        expected = plain_training(plain_network(network()), regression_loader(), reference, range(12))
        self.assert_close(self.trained(hparams("12it", optimizer_name, **changes)), expected)

    def test_sgd(self):
        self.assert_trains_like(torch.optim.SGD)

    def test_sgd_with_momentum(self):
        self.assert_trains_like(functools.partial(torch.optim.SGD, momentum=0.9), momentum=0.9)

    def test_sgd_with_nesterov_momentum(self):
        self.assert_trains_like(functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True), nesterov_momentum=0.9)

    def test_sgd_with_weight_decay(self):
        self.assert_trains_like(functools.partial(torch.optim.SGD, weight_decay=0.01), weight_decay=0.01)

    def test_adam(self):
        self.assert_trains_like(torch.optim.Adam, "adam")

    def test_adam_with_weight_decay(self):
        self.assert_trains_like(functools.partial(torch.optim.Adam, weight_decay=0.01), "adam", weight_decay=0.01)

    def test_adam_with_another_first_decay_rate(self):
        self.assert_trains_like(functools.partial(torch.optim.Adam, betas=(0.5, 0.999)), "adam", adam_beta1=0.5)

    def test_nadam(self):
        self.assert_trains_like(torch.optim.NAdam, "nadam")
        self.assert_trains_like(functools.partial(torch.optim.NAdam, betas=(0.5, 0.999)), "nadam", adam_beta1=0.5)

    def test_frozen_parameters_do_not_change(self):
        for name in ("sgd", "adam"):
            model = network()
            model.fc_layers.requires_grad_(False)
            frozen, free = model.fc_layers[0].weight.clone(), model.fc.weight.clone()
            train(hparams("3it", name, weight_decay=0.1), model, regression_loader(), self.folder())
            self.assertTrue(torch.equal(model.fc_layers[0].weight.cpu(), frozen))
            self.assertFalse(torch.equal(model.fc.weight.cpu(), free))

    def test_the_error_for_an_unknown_optimizer_suggests_the_nearest_name(self):
        with self.assertRaisesRegex(ConfigError, "--optimizer_name: 'adan' is not known, did you mean 'n?adam'.*, nadam, sgd"):
            optimizers.check(hparams(optimizer_name="adan"), classes=False)

    def test_help_lists_the_valid_optimizers(self):
        for name in optimizers.choices()["optimizer_name"]:
            optimizers.check(hparams(optimizer_name=name), classes=False)
            optimizers.get_optimizer(hparams(optimizer_name=name), network())

    def test_levenberg_marquardt_requires_real_valued_targets(self):
        with self.assertRaisesRegex(ConfigError, "levenberg_marquardt fits .*valid here: sgd, adam, nadam, lbfgs"):
            optimizers.check(hparams(optimizer_name="levenberg_marquardt"), classes=True)

    def test_second_order_optimizers_refuse_unsupported_hyperparameters(self):
        for name in ("lbfgs", "levenberg_marquardt"):
            for field in ("momentum", "nesterov_momentum", "weight_decay"):
                with self.assertRaisesRegex(ConfigError, f"--{field}: {name} does not use it"):
                    optimizers.check(hparams(optimizer_name=name, **{field: 0.5}), classes=False)

    def test_second_order_optimizers_refuse_16_bits(self):
        for name in ("lbfgs", "levenberg_marquardt"):
            for flag, changes in (("precision", {"precision": "bf16"}), ("apex_fp16", {"apex_fp16": True, "precision": "float32"})):
                with self.assertRaisesRegex(ConfigError, f"^--{flag}: {name} needs more precision.*; valid here: float32, tf32, float64$"):
                    optimizers.check(hparams(optimizer_name=name, **changes), classes=False)


class RateTest(TrainTestCase):
    """The learning rate of the optimizer before every update and after the last."""

    def rates(self, **changes) -> list[float]:
        options = {name: changes.pop(name) for name in ("start", "end") if name in changes}
        seen = []
        self.trained(hparams("20it", **changes), lambda *call: seen.append(call[3].param_groups[0]["lr"]), **options)
        return seen

    def assert_rates(self, rate, iterations=range(21), **changes):
        actual = self.rates(**changes)
        torch.testing.assert_close(actual, [0.1 * rate(i) for i in iterations], rtol=1e-12, atol=1e-16)

    def test_the_rate_is_constant_by_default(self):
        self.assert_rates(lambda i: 1)

    def test_warmup_rises_linearly_from_zero(self):
        self.assert_rates(lambda i: min(1, i / 8), warmup_steps="8it")

    def test_warmup_may_be_given_in_epochs(self):
        self.assert_rates(lambda i: min(1, i / (2 * BATCHES)), warmup_steps="2ep")

    def test_every_milestone_multiplies_the_rate_by_a_tenth(self):
        self.assert_rates(lambda i: 0.1 ** ((i >= 2 * BATCHES) + (i >= 13)), milestone_steps="2ep,13it")

    def test_milestones_multiply_the_rate_by_delta(self):
        self.assert_rates(lambda i: 0.5 ** ((i >= 6) + (i >= 13)), milestone_steps="6it,13it", delta=0.5)

    def test_cosine_falls_from_the_full_rate_to_zero(self):
        actual = self.rates(lr_decay="cosine")
        torch.testing.assert_close(actual[:20], [0.05 * (1 + math.cos(math.pi * i / 20)) for i in range(20)], rtol=1e-12, atol=1e-16)

    def test_warmup_milestones_and_cosine_multiply(self):
        actual = self.rates(warmup_steps="5it", milestone_steps="8it,12it", delta=0.3, lr_decay="cosine")
        expected = [0.1 * min(1, i / 5) * 0.3 ** bisect.bisect_right([8, 12], i) * (1 + math.cos(math.pi * i / 20)) / 2 for i in range(20)]
        torch.testing.assert_close(actual[:20], expected, rtol=1e-12, atol=1e-16)

    def test_part_of_a_run_has_the_rates_of_those_iterations(self):
        def rate(i):
            return min(1, i / 8) * 0.1 ** (i >= 10)

        part = {"start": Step(6, BATCHES), "end": Step(12, BATCHES)}
        self.assert_rates(rate, range(6, 13), warmup_steps="8it", milestone_steps="10it", **part)

    def test_part_of_a_run_has_its_part_of_the_cosine(self):
        actual = self.rates(lr_decay="cosine", start=Step(6, BATCHES), end=Step(12, BATCHES))
        torch.testing.assert_close(actual, [0.05 * (1 + math.cos(math.pi * i / 20)) for i in range(6, 13)], rtol=1e-12, atol=1e-16)

    def test_updates_use_the_scheduled_rate(self):
        def rate(i):
            return 0.1 * min(1, i / 4) * 0.5 ** (i >= 7) * (1 + math.cos(math.pi * i / 12)) / 2

        for name, reference in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)):
            expected = plain_training(plain_network(network()), regression_loader(), reference, range(12), rate)
            changes = {"warmup_steps": "4it", "milestone_steps": "7it", "delta": 0.5, "lr_decay": "cosine"}
            self.assert_close(self.trained(hparams("12it", name, **changes)), expected)


class PlateauTest(TrainTestCase):
    epochs = 60

    def reference(self, patience: int, cooldown: int, factor: float) -> tuple[list[float], torch.Tensor]:
        """A plain loop with torch's plateau schedule: the rates at the starts of the epochs, and the final weights."""
        loader = regression_loader()
        model = plain_network(network()).to(loader.examples.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=factor, patience=patience, threshold=0.0, cooldown=cooldown, min_lr=1e-7
        )
        rates, stream = [], batches(loader)
        for _ in range(self.epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            total = 0.0
            for examples, labels in itertools.islice(stream, BATCHES):
                optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(model(examples), labels)
                loss.backward()
                optimizer.step()
                total += loss.item()
            schedule.step(total / BATCHES)
        return rates, weights(model)

    def ours(self, **changes) -> tuple[list[float], torch.Tensor]:
        seen = []

        def note(location, step, model, optimizer, logger):
            if step.it == 0 and not step.last:
                seen.append(optimizer.param_groups[0]["lr"])

        trained = self.trained(hparams(f"{self.epochs}ep", lr=0.5, momentum=0.5, plateau_opt=True, **changes), note)
        return seen, trained

    def test_the_plateau_schedule_equals_that_of_torch(self):
        for patience, cooldown, delta in ((1, 0, 0.5), (2, 3, 0.7), (0, 6, 0.5)):
            with self.subTest(patience=patience, cooldown=cooldown):
                rates, final = self.reference(patience, cooldown, delta)
                ours, trained = self.ours(patience=patience, cooldown=cooldown, delta=delta)
                self.assertGreater(len(set(rates)), 3)
                torch.testing.assert_close(ours, rates, rtol=1e-12, atol=0)
                torch.testing.assert_close(trained, final, rtol=1e-8, atol=1e-10)

    def test_the_default_plateau_factor_is_the_root_of_a_tenth(self):
        rates, _ = self.ours(patience=3, cooldown=3)
        self.assertAlmostEqual(min(rates) / sorted(set(rates))[1], 10**-0.5, places=12)

    def test_milestones_and_plateaus_multiply(self):
        plain, _ = self.ours(patience=0, cooldown=30, delta=0.5)
        fallen = next(epoch for epoch, rate in enumerate(plain) if rate < 0.5)
        both, _ = self.ours(patience=0, cooldown=30, delta=0.5, milestone_steps=f"{fallen}ep")
        self.assertAlmostEqual(both[fallen], 0.5 * 0.5 * 0.5, places=12)

    def ended(self, **changes) -> tuple[Step, list[float]]:
        seen = []
        plateau = hparams("900ep", lr=0.5, plateau_opt=True, patience=0, cooldown=0, **changes)
        note = Plan([lambda *call: seen.append(call[3].param_groups[0]["lr"])])
        end = train(plateau, network(), regression_loader(), self.folder(), note)
        return end, seen

    def test_training_stops_after_an_epoch_at_the_smallest_rate(self):
        end, rates = self.ended(delta=0.01)
        self.assertLess(end.ep, 900)
        self.assertTrue(end.last)
        self.assertEqual(end.it, 0)
        self.assertEqual(sorted(set(rates), reverse=True), [0.5, 0.5 * 0.01, 0.5 * 0.01 * 0.01, 0.5 * 0.01 * 0.01 * 0.01, 1e-7])
        self.assertEqual(rates[-BATCHES - 2], 0.5 * 0.01 * 0.01 * 0.01)
        self.assertEqual(rates[-BATCHES - 1 :], [1e-7] * (BATCHES + 1))

    def test_further_training_continues_from_the_stop(self):
        end, _ = self.ended(delta=0.01)
        prolonged, _ = self.ended(delta=0.01, extra_training="2ep")
        self.assertEqual(prolonged.iteration, end.iteration + 2 * BATCHES)


class ScheduleStateTest(TrainTestCase):
    def schedule(self, **changes) -> optimizers.Schedule:
        training_hparams = hparams("20it", plateau_opt=True, patience=1, cooldown=1, delta=0.5, **changes)
        return optimizers.Schedule(training_hparams, optimizers.get_optimizer(training_hparams, network()), BATCHES, Step(40, BATCHES))

    def test_a_restored_schedule_continues_like_the_original(self):
        losses = torch.tensor([2.0, 1.0] + [5.0] * 13 + [0.5] * 3 + [9.0] * 14)
        for cut in range(len(losses)):
            whole, first, second = (self.schedule(lr_decay="cosine") for _ in range(3))
            for loss in losses[:cut]:
                first.step(loss)
            second.load_state_dict(first.state_dict())
            for loss in losses:
                whole.step(loss)
            for loss in losses[cut:]:
                second.step(loss)
            self.assertEqual(second.optimizer.param_groups[0]["lr"], whole.optimizer.param_groups[0]["lr"])
            self.assertEqual(second.state_dict(), whole.state_dict())
        self.assertLess(whole.plateau_rate, 0.1)

    def test_the_state_of_an_earlier_version_is_restored(self):
        schedule = self.schedule()
        state = schedule.state_dict()
        del state["plateau"]["rate"]
        schedule.load_state_dict(state | {"plateau": state["plateau"] | {"scale": 0.25}})
        self.assertEqual(schedule.plateau_rate, 0.1 * 0.25)
