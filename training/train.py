"""The training loop, and a standard run of it."""

from __future__ import annotations

import dataclasses

import torch

from datasets.base import DataLoader
from foundations import paths
from foundations.seeds import derive
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import registry
from models.base import Model
from platforms.platform import get_platform
from platforms.system import memory
from platforms.system.signals import Stopped
from training import adoption, arithmetic, captured, checkpointing, plotting, sharing, standard_callbacks
from training.metric_logger import MetricLogger
from training.optimizers import Schedule, get_optimizer
from training.plan import STANDARD, WHOLE, Plan, StandardPlan
from training.sharing import Parallelism
from training.trackers import registry as trackers

CHECKPOINT_SECONDS = 1.0  # epochs shorter than this share a checkpoint
CHECKPOINT_SECONDS_WITHIN = 180.0  # between checkpoints within longer epochs


class Objective:
    """The closure that an optimizer minimises: the loss of a model on one batch.

    A call computes the gradient, scaled in fp16, and returns the loss. Second-order optimizers read `examples` and `labels`. If these
    are a `share` of a batch, gradient and loss are their contributions to those of the batch.
    """

    def __init__(
        self, model: Model, examples: torch.Tensor, labels: torch.Tensor, computed: arithmetic.Arithmetic | None = None, share: float = 1.0
    ):
        self.model, self.examples, self.labels, self.share = model, examples, labels, share
        self._forward, self._scale = (computed.forward, computed.scaler.scale) if computed else (model, lambda loss: loss)

    def __call__(self) -> torch.Tensor:
        self.model.zero_grad(set_to_none=True)
        outputs = self._forward(self.examples)
        loss = self.model.loss_criterion(outputs, self.labels) if self.share else outputs.sum()  # of nothing: 0
        if self.share != 1:
            loss = loss * self.share
        self._scale(loss).backward()
        return loss.detach()


def train(training_hparams: TrainingHparams, model: Model, train_loader: DataLoader, output_location: str, plan: Plan = WHOLE) -> Step:
    """Trains a model in place, from its checkpoint where there is one.

    Args:
        training_hparams: how to train.
        model: the model; it is moved to the platform's device and to the stored precision.
        train_loader: the examples.
        output_location: the run folder.
        plan: the callbacks, the stop rules, and the first and the last step.

    Returns:
        The step at which training ended: the planned one, or an earlier one if a stop rule, the schedule or the optimizer ended it.

    Raises:
        Stopped: the platform is stopping; the checkpoint of this step has been written.
    """
    memory.keep_freed()
    parallelism = sharing.parallelism_of(training_hparams, model)
    arithmetic.check(training_hparams)
    model.to(get_platform().torch_device, getattr(torch, training_hparams.stored_precision))
    if parallelism is Parallelism.PRIMARY:
        everything = training_hparams, model, train_loader, output_location, plan
        return Step(sharing.on_primary(model, lambda: train(*everything).iteration), len(train_loader), last=True)
    torch.manual_seed(derive(train_loader.seed, "training"))
    with arithmetic.tf32(training_hparams.arithmetic == "tf32"), arithmetic.channels_last(training_hparams, model):
        if parallelism is Parallelism.EXAMPLES:
            train_loader = train_loader.sharded(get_platform().rank, get_platform().world_size)
        if parallelism is not Parallelism.NETWORKS:
            return _train(training_hparams, model, train_loader, output_location, plan)
        shard = sharing.StackShard(model)
        end = _train(training_hparams, shard, train_loader, output_location, plan)
        model.load_state_dict(shard.state_dict())
        return end


def _train(training_hparams: TrainingHparams, model: Model, train_loader: DataLoader, output_location: str, plan: Plan) -> Step:
    """The training loop of one process, over its networks of the stack or its part of the batches."""
    iterations = len(train_loader)
    _, parts = train_loader.shard
    computed, optimizer = arithmetic.Arithmetic(training_hparams, model, joint=parts > 1), get_optimizer(training_hparams, model)
    schedule = Schedule(training_hparams, optimizer, iterations, plan.end or Step.from_str(training_hparams.training_steps, iterations))
    schedule.advance_to(plan.start or Step.zero(iterations))
    state = checkpointing.State(model, optimizer, computed.scaler, schedule)
    checkpointing.restore(output_location, state)
    pace, batches = checkpointing.CheckpointTimer(CHECKPOINT_SECONDS, CHECKPOINT_SECONDS_WITHIN), None

    def plain_update(examples: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
        model.train()
        return computed.update(optimizer, Objective(model, examples, labels, computed, share))

    with captured.updates(plain_update, optimizer, train_loader, computed) as update:
        while True:
            step = Step(schedule.iteration, iterations, last=schedule.is_over())
            _save_or_stop(output_location, step, pace, state)
            for callback in plan.callbacks:
                callback(output_location, step, model, optimizer, state.logger)
            if step.last:
                checkpointing.drop_previous(output_location)
                return step
            if any(is_met(step, model, state.logger) for is_met in plan.stop_when):
                schedule.stop()
            if batches is None or step.it == 0:
                batches = train_loader.epoch(step.ep, step.it)
            examples, labels = next(batches)
            schedule.step(update(examples, labels, train_loader.shard_fraction(step.it)))


def _save_or_stop(output_location: str, step: Step, pace: checkpointing.CheckpointTimer, state: checkpointing.State) -> None:
    """Writes a checkpoint if one is due or the platform is stopping; raises Stopped in the latter case."""
    notes = not step.last and get_platform().is_stopping, pace.is_due(step)
    stop, due = get_platform().any_process(*notes, immediate=step.it == 0 or step.last)
    if stop or due:
        checkpointing.save(output_location, state)
        pace.done()
    if stop:
        raise Stopped(f"{output_location} has stopped at {step}")


def standard_train(
    training_hparams: TrainingHparams,
    model: Model,
    loaders: tuple[DataLoader, DataLoader],
    output_location: str,
    plan: StandardPlan = STANDARD,
) -> None:
    """Trains with the standard callbacks. If the run is finished, only loads its weights into the model.

    If the plan has an identity, the run writes its provenance and sends its telemetry to trackers.

    Args:
        training_hparams: how to train.
        model: the model.
        loaders: of the training and of the test set.
        output_location: the run folder.
        plan: the first and the last step, what is printed, and further callbacks.
    """
    train_loader, _ = loaders
    if get_platform().exists(paths.logger(output_location)) and not training_hparams.continues:
        end = Step(MetricLogger.load(output_location).last_iteration, len(train_loader))
        if registry.exists(output_location, end):
            if plan.has_curves:
                plotting.draw_missing_curves(output_location)
            registry.load_weights(paths.model(output_location, end), model)
            model.to(get_platform().torch_device)
            return
        if adoption.is_copy(output_location):  # the published code may stop between two records of the log
            registry.load_weights(registry.latest_weights_file(output_location), model)
            model.to(get_platform().torch_device)
            return
    planned = plan.end or Step.from_str(training_hparams.training_steps, len(train_loader))
    callbacks = [*standard_callbacks.standard_callbacks(plan, planned, model, loaders), *plan.callbacks]
    if plan.identity:
        callbacks = [standard_callbacks.create_provenance_callback(plan.identity.seed), *callbacks]
    with trackers.following(plan.identity) as followers:
        train(training_hparams, model, train_loader, output_location, dataclasses.replace(plan, callbacks=[*callbacks, *followers]))
