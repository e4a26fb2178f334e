"""The standard callbacks of training: evaluation, saving and progress.

A callback is `callback(output_location, step, model, optimizer, logger)`. It is called before every update and after the last, where
`step.last` is true; wrappers such as `run_every_epoch(callback)` choose the steps at which it runs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from datasets.base import DataLoader
from foundations import paths
from foundations.step import Step
from models.base import Model
from platforms.system import provenance
from training import divergence, plotting
from training.evaluation import evaluate
from training.plan import Callback, StandardPlan

STUDENT_EVALUATIONS = 50  # students have short epochs; this is about the number of their evaluations
LINE_SECONDS = 5.0  # between lines of progress without a terminal


def run_every(epochs: int, callback: Callback) -> Callback:
    """Runs a callback at the start of every `epochs`-th epoch, and at the last step."""

    def run(output_location, step, model, optimizer, logger):
        if step.last or (step.it == 0 and step.ep % epochs == 0):
            callback(output_location, step, model, optimizer, logger)

    return run


def run_every_step(callback: Callback) -> Callback:
    """Runs a callback at every step, as it does without a wrapper."""
    return callback


def run_every_epoch(callback: Callback) -> Callback:
    """Runs a callback at the start of every epoch, and at the last step."""
    return run_every(1, callback)


def run_at_step(wanted: Step, callback: Callback) -> Callback:
    """Runs a callback at one step."""

    def run(output_location, step, model, optimizer, logger):
        if step == wanted:
            callback(output_location, step, model, optimizer, logger)

    return run


def run_at_last_step(callback: Callback) -> Callback:
    """Runs a callback when training is over."""

    def run(output_location, step, model, optimizer, logger):
        if step.last:
            callback(output_location, step, model, optimizer, logger)

    return run


def save_model(output_location, step, model, optimizer, logger):
    """Writes the weights."""
    model.save(output_location, step)


def save_curves(output_location, step, model, optimizer, logger):
    """Draws the curves of all metrics. A failure is a warning."""
    plotting.attempt(paths.curves(output_location), lambda: plotting.curves(logger, output_location))


def save_logger(output_location, step, model, optimizer, logger):
    """Writes the log, which marks the run as finished."""
    logger.save(output_location)


def create_eval_callback(name: str, loader: DataLoader, verbose: bool = False) -> Callback:
    """A callback that evaluates on a dataset, logs its metrics as `<name>_loss` and so on, and prints a line if `verbose`."""
    started = time.monotonic()

    def run(output_location, step, model, optimizer, logger):
        results = evaluate(model, loader)
        for metric, value in results.items():
            logger.add(f"{name}_{metric}", step, value)
        if verbose:
            accuracy = f"acc {100 * results['accuracy']:6.2f}%\t" if "accuracy" in results else ""
            tqdm.write(
                f"{name:<7} ep {step.ep:03d}\tit {step.it:03d}\tloss {results['loss']:<8.4g}\t{accuracy}"
                f"ex {len(loader.dataset)}\ttime {time.monotonic() - started:.2f}s"
            )

    return run


def create_provenance_callback(seed: int) -> Callback:
    """A callback that records the start of the run in its provenance, once its checkpoint has been loaded."""
    noted = False

    def run(output_location, step, model, optimizer, logger):
        nonlocal noted
        if not noted:
            provenance.record(output_location, seed)
            noted = True

    return run


def create_progress_callback(end: Step, metric: str, plain_lines: bool) -> Callback:
    """A callback that shows the progress of training, with the latest value of a metric and the remaining time.

    On a terminal it shows a bar; elsewhere, if `plain_lines`, it prints a line every few seconds.
    """
    bar = None
    started = shown = time.monotonic()
    first = None

    def show_bar(first, step, logger):
        nonlocal bar
        if bar is None:
            bar = tqdm(total=end.iteration, initial=first, unit="it", leave=False, dynamic_ncols=True)
        bar.update(step.iteration - bar.n)
        if step.it == 0:
            bar.set_postfix_str(newest(logger), refresh=False)
        if step.last:
            bar.close()

    def print_line(first, step, logger):
        nonlocal shown
        shown = time.monotonic()
        done = (step.iteration - first) / max(1, end.iteration - first)
        left = 0 if step.last or not done else (shown - started) * (1 - done) / done
        print(f"ep {step.ep:03d}\tit {step.it:03d}\tof {end}\t{newest(logger)}\ttime {shown - started:.0f}s\tleft {left:.0f}s", flush=True)

    def newest(logger):
        value = logger.latest(metric)
        return "" if value is None else f"{metric.replace('_', ' ')} {value:.3g}"

    def run(output_location, step, model, optimizer, logger):
        nonlocal first
        first = step.iteration if first is None else first
        if sys.stderr.isatty():
            show_bar(first, step, logger)
        elif plain_lines and (step.last or time.monotonic() - shown >= LINE_SECONDS):
            print_line(first, step, logger)

    return run


def standard_callbacks(plan: StandardPlan, end: Step, model: Model, loaders: tuple[DataLoader, DataLoader]) -> Sequence[Callback]:
    """The callbacks of a standard run: save the network before and after, evaluate every epoch, warn of divergence, show progress, and
    finally write the log and, if the plan has curves, draw them.

    Students are evaluated less often, and on the training set only at both ends. A training set that is read from files is evaluated
    only at the end, because this takes about as long as an epoch.

    Args:
        plan: what is printed and evaluated, and the first step.
        end: the planned last step.
        model: the model that is trained.
        loaders: of the training and of the test set.
    """
    train_loader, test_loader = loaders
    students = hasattr(model, "individual_losses")
    spacing = max(1, -(-end.ep // STUDENT_EVALUATIONS)) if students else 1
    epoch_lines = plan.verbose and plan.epoch_lines and not students
    on_train = create_eval_callback("train", train_loader, epoch_lines)
    on_test = create_eval_callback("test", test_loader, epoch_lines)
    start = plan.start or Step.zero(end.iterations_per_epoch)

    def at_ends(callback):
        return [run_at_step(start, callback), run_at_last_step(callback)]

    callbacks = at_ends(save_model)
    if train_loader.is_stream:
        callbacks.append(run_at_last_step(on_train))
    else:
        callbacks += at_ends(on_train) if students or plan.evaluate_only_at_end else [run_every_epoch(on_train)]
    callbacks += at_ends(on_test) if plan.evaluate_only_at_end else [run_every(spacing, on_test)]
    callbacks.append(divergence.create_warning_callback())
    if plan.verbose:
        callbacks.append(create_progress_callback(end, "test_loss", plain_lines=not epoch_lines))
    callbacks.append(run_at_last_step(save_logger))
    return [*callbacks, run_at_last_step(save_curves)] if plan.has_curves else callbacks
