"""An epoch of training students: this implementation against its largest matrix products alone, and the published layout.

Command: python -m testing.benchmarks.students_throughput
Hardware: 2 CPU cores.
Result: with `--batches 40 --repeats 4`, 10 and 50 students 784-80-10 took 1.41 and 1.26 times as long as the products, which misses 1.3 for
ten (1.26 to 1.64 and 1.23 to 1.38 in other runs), and the published layout 1.59 and 1.68 times as long as this implementation; 64-64-10 and
2-16-1 were 4.4 and 4.3 times as fast as the published layout with its loader (n=1). Of ten students the forward and the backward pass take
1.26 times as long as the products. The rest is Adam: the passes evict its moments from the cache, so that a step takes 1 to 1.5 ms after
them, and 0.4 ms by itself. Large pages do not change that.

Students of 784-80-10 are to take at most 1.3 times as long as the two products of their first layer alone (forward, and for the gradient of
the weights, of all students at once), and the published layout at least 1.3 times as long as ours, both with queries in memory. There the
networks are the last axis: weights `[inputs, width, N]`, `einsum('bi,ihn->bhn')`, and torch's Adam as it comes. Students of 64-64-10 and
2-16-1 are to be at least 3 times as fast as the published layout with its loader, which collates one example at a time. Ours is an epoch of
`training.train`, but for its checkpoint, which depends on the disk. Queries and answers are random, batches of 512; the best of some
alternating repetitions counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from unittest import mock

import torch
from torch import nn

from datasets import base, teacher_dataset
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import registry as models
from platforms.platform import get_platform
from training.plan import Plan
from training.train import train

BATCH_SIZE, LR = 512, 1e-3
PRODUCTS_TARGET, LAYOUT_TARGET, LOADER_TARGET = 1.3, 1.3, 3.0
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@dataclasses.dataclass
class Case:
    """N students of inputs-width-outputs, and how many batches an epoch has."""

    networks: int
    sizes: tuple[int, int, int]
    batches: int

    def dataset(self) -> base.Dataset:
        """Random queries and answers for an epoch, on the platform's device."""
        inputs, _, outputs = self.sizes
        values = torch.randn(self.batches * BATCH_SIZE, inputs + outputs, generator=torch.Generator().manual_seed(0))
        return teacher_dataset.Dataset(values[:, :inputs].contiguous(), values[:, inputs:].contiguous())

    def __str__(self):
        return f"{self.networks} students {'-'.join(map(str, self.sizes))}"


class PublishedStudents(nn.Module):
    """Two layers with the networks on the last axis: `[B, I]` to `[B, O, N]`."""

    def __init__(self, case: Case):
        super().__init__()
        inputs, width, outputs = case.sizes
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(*pair, case.networks) / pair[0] ** 0.5) for pair in ((inputs, width), (width, outputs))
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size, case.networks)) for size in (width, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.einsum("bi,ihn->bhn", x, self.weights[0]) + self.biases[0])
        return torch.einsum("bhn,hon->bon", x, self.weights[1]) + self.biases[1]


def synchronised() -> float:
    """The time in seconds, once the device has finished its work."""
    if get_platform().torch_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def products_epoch(case: Case, dataset: base.Dataset) -> Callable[[], None]:
    """The two products of the first layer alone, for all students at once, batch by batch."""
    inputs, width, _ = case.sizes
    weights, slopes = (torch.randn(rows, case.networks * width, device=dataset.examples.device) for rows in (inputs, BATCH_SIZE))

    def run() -> None:
        for examples in dataset.examples.split(BATCH_SIZE):
            examples @ weights
            examples.T @ slopes

    return run


def published_epoch(case: Case, batches: Callable[[], Batches]) -> Callable[[], None]:
    """The published layout in a plain loop."""
    device = get_platform().torch_device
    model = PublishedStudents(case).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def run() -> None:
        for examples, labels in batches():
            optimizer.zero_grad()
            (model(examples.to(device)) - labels.to(device).unsqueeze(-1)).square().mean((0, 1)).sum().backward()
            optimizer.step()

    return run


def in_memory(dataset: base.Dataset) -> Callable[[], Batches]:
    """Shuffled batches of a dataset that is on the device."""

    def batches() -> Batches:
        for places in torch.randperm(len(dataset), device=dataset.examples.device).split(BATCH_SIZE):
            yield dataset.examples[places], dataset.labels[places]

    return batches


def one_by_one(dataset: base.Dataset) -> Callable[[], Batches]:
    """Shuffled batches that torch's loader collates from single examples."""
    examples = torch.utils.data.TensorDataset(dataset.examples.cpu(), dataset.labels.cpu())
    return lambda: torch.utils.data.DataLoader(examples, BATCH_SIZE, shuffle=True)


def our_epoch(case: Case, dataset: base.Dataset) -> Callable[[], float]:
    """Trains for three epochs; returns the seconds of the second."""
    name = f"students_mlp({case.networks})_{'_'.join(map(str, case.sizes))}"
    loader = base.DataLoader(dataset, BATCH_SIZE)

    def run() -> float:
        model, starts = models.get(ModelHparams(name, "kaiming_normal", "uniform")), []

        def note(output_location: str, step: Step, *_) -> None:
            if step.it == 0:
                starts.append(synchronised())

        with tempfile.TemporaryDirectory() as folder, mock.patch("training.train.CHECKPOINT_SECONDS", math.inf):
            train(TrainingHparams("adam", LR, "3ep"), model, loader, folder, Plan(callbacks=[note]))
        return starts[2] - starts[1]

    return run


def timed(run: Callable[[], None]) -> float:
    """The seconds of a run."""
    start = synchronised()
    run()
    return synchronised() - start


def best(ours: Callable[[], float], others: dict[str, Callable[[], None]], repeats: int) -> tuple[float, dict[str, float]]:
    """The shortest time of `ours` and of each of the others in seconds; they take turns."""
    for run in others.values():
        run()  # an untimed run, to warm up
    rounds = [(ours(), *(timed(run) for run in others.values())) for _ in range(repeats)]
    fewest, *rest = (min(column) for column in zip(*rounds, strict=True))
    return fewest, dict(zip(others, rest, strict=True))


def verdict(met: bool, words: str) -> bool:
    """Prints whether a target is met, and returns it."""
    print(f"    {'met' if met else 'MISSED'}: {words}", flush=True)
    return met


def compare_large(case: Case, repeats: int) -> bool:
    """Times students whose first layer takes nearly all of the arithmetic."""
    dataset = case.dataset()
    others = {"products": products_epoch(case, dataset), "layout": published_epoch(case, in_memory(dataset))}
    ours, seconds = best(our_epoch(case, dataset), others, repeats)
    inputs, width, _ = case.sizes
    work = 4 * len(dataset) * inputs * width * case.networks / seconds["products"] / 1e9
    print(f"{case}\n    ours {ours:.3f} s, first-layer products {seconds['products']:.3f} s ({work:.0f} GFLOP/s)", end="")
    print(f", published layout {seconds['layout']:.3f} s")
    slower, faster = ours / seconds["products"], seconds["layout"] / ours
    products = verdict(slower <= PRODUCTS_TARGET, f"{slower:.2f} times as long as the products, at most {PRODUCTS_TARGET}")
    return verdict(faster >= LAYOUT_TARGET, f"{faster:.2f} times as fast as the published layout, at least {LAYOUT_TARGET}") and products


def compare_small(case: Case, repeats: int) -> bool:
    """Times students whose arithmetic is small compared with the overhead of the loop."""
    dataset = case.dataset()
    ours, seconds = best(our_epoch(case, dataset), {"published": published_epoch(case, one_by_one(dataset))}, repeats)
    print(f"{case}\n    ours {ours:.3f} s, published layout with its loader {seconds['published']:.3f} s")
    faster = seconds["published"] / ours
    return verdict(faster >= LOADER_TARGET, f"{faster:.2f} times as fast, at least {LOADER_TARGET}")


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="Times an epoch of students against matrix products and the published layout.")
    parser.add_argument("--batches", type=int, default=118, help="batches in an epoch (default: 118, of 60,000 queries)")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions, of which the best counts (default: 5)")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {get_platform().torch_device}", flush=True)
    large = [compare_large(Case(networks, (784, 80, 10), args.batches), args.repeats) for networks in (10, 50)]
    small = [compare_small(Case(10, sizes, args.batches), args.repeats) for sizes in ((64, 64, 10), (2, 16, 1))]
    return int(not all(large + small))


if __name__ == "__main__":
    sys.exit(main())
