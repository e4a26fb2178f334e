"""An epoch of training, and the loader alone: this implementation against the published data path.

Command: python -m testing.benchmarks.training_epoch
Hardware: 2 CPU cores.
Result: MNIST 0.52 s against 17.6 s, 33.6 times as fast; CIFAR-10 0.31 s against 11.6 s, 37.2 times (n=1).

*MNIST*: one epoch of `mnist_lenet_20`, batches of 128, on 60,000 images of 28x28, and one evaluation on these and on 10,000 others.
*CIFAR-10*: one epoch of the loader of 50,000 images of 32x32 in three colours, with random crops and mirror images, and no network. The
pixels are random.

The published data path makes a PIL image of each example, transforms each one separately, converts it to a tensor, standardises it, and
uses the default collation; a plain loop trains the network. It runs without worker processes, as published, and with them. This
implementation is `training.train` and the loaders of `datasets`; making their tensors, which happens once, is timed separately.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable

import torch
from PIL import Image

from datasets import base, cifar10, mnist
from models import registry as models
from platforms.platform import get_platform
from training.desc import TrainingDesc
from training.plan import Plan
from training.standard_callbacks import create_eval_callback, run_at_last_step
from training.train import train

MNIST_TARGET, CIFAR_TARGET = 15, 20  # times as fast as the published path without workers
BATCH_SIZE = 128


def random_images(dataset: type[base.ImageDataset], count: int, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pixels and labels in the format of `dataset.read`."""
    generator = torch.Generator().manual_seed(int(train))
    pixels = torch.randint(0, 256, (count, *dataset.image_shape), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(dataset.classes, (count,), generator=generator)


def loaders(dataset: type[base.ImageDataset], desc: TrainingDesc, parts: dict[bool, tuple]) -> list[base.DataLoader]:
    """Loaders of this framework for given pixels and labels: training, then test."""
    of_parts = type(dataset.__name__, (dataset,), {"read": staticmethod(parts.__getitem__)})
    return [base.DataLoader(of_parts.create(desc.dataset_hparams, part, 0), BATCH_SIZE) for part in (True, False)]


class PublishedDataset(torch.utils.data.Dataset):
    """Examples one at a time, from a PIL image through torchvision's transforms."""

    def __init__(self, dataset: type[base.ImageDataset], part: tuple[torch.Tensor, torch.Tensor], augment: bool):
        from torchvision import transforms

        pixels, labels = part
        self.pixels, self.labels = pixels.permute(0, 2, 3, 1).squeeze(-1).numpy(), labels.numpy()
        augmentation = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(pixels.shape[-1], 4)] if augment else []
        self.transform = transforms.Compose([*augmentation, transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def published_loader(dataset: PublishedDataset, shuffle: bool, workers: int) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(dataset, BATCH_SIZE, shuffle, num_workers=workers)


def published_epoch(desc: TrainingDesc, train_part: PublishedDataset, test_part: PublishedDataset, workers: int) -> None:
    """An epoch of SGD in a plain loop, and an evaluation on both parts."""
    device = get_platform().torch_device
    model = models.get(desc.model_hparams, 10, 0).to(device)
    optimizer = torch.optim.SGD(model.parameters(), desc.training_hparams.lr)
    for images, labels in published_loader(train_part, True, workers):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images.to(device)), labels.to(device)).backward()
        optimizer.step()
    with torch.no_grad():
        for part in (train_part, test_part):
            loss = correct = 0.0
            for images, labels in published_loader(part, False, workers):
                outputs, labels = model(images.to(device)), labels.to(device)
                loss += torch.nn.functional.cross_entropy(outputs, labels, reduction="sum")
                correct += (outputs.argmax(1) == labels).sum()
            float(loss), float(correct)


def our_epoch(desc: TrainingDesc, train_loader: base.DataLoader, test_loader: base.DataLoader) -> None:
    """The same, by the loop of this framework."""
    model = models.get(desc.model_hparams, 10, 0)
    evaluations = [create_eval_callback("train", train_loader), create_eval_callback("test", test_loader)]
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(callbacks=[run_at_last_step(evaluation) for evaluation in evaluations])
        train(desc.training_hparams, model, train_loader, folder, plan)


def run_through(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Loads all batches to the platform's device, and waits for them."""
    device = get_platform().torch_device
    for images, labels in batches:
        images.to(device), labels.to(device)
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable, *args: object, repeats: int = 1) -> tuple[float, object]:
    """The median time of some calls in seconds, and the result of the last call."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*args)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2], result


def report(title: str, making: float, ours: float, published: dict[int, float], target: int) -> bool:
    """Prints the times of a comparison; returns whether ours is at least `target` times as fast as the published path without workers."""
    print(f"{title}\n    ours                    {ours:7.3f} s   (and {making:.2f} s once, for the tensors)")
    for workers, seconds in published.items():
        print(f"    published, {workers} workers    {seconds:7.3f} s   {seconds / ours:5.1f} times as long")
    fast = published[0] >= target * ours
    print(f"    {'at least' if fast else 'LESS THAN'} {target} times as fast as without workers", flush=True)
    return fast


def compare_mnist(workers: int, repeats: int) -> bool:
    """Times an epoch of `mnist_lenet_20`."""
    desc = TrainingDesc.default_for("mnist_lenet_20")
    desc.training_hparams.training_steps = "1ep"
    parts = {part: random_images(mnist.Dataset, 60_000 if part else 10_000, part) for part in (True, False)}
    making, ours = timed(loaders, mnist.Dataset, desc, parts)
    seconds, _ = timed(our_epoch, desc, *ours, repeats=repeats)
    theirs = [PublishedDataset(mnist.Dataset, part, augment=False) for part in parts.values()]
    published = {count: timed(published_epoch, desc, *theirs, count)[0] for count in (0, workers)}
    return report("MNIST, an epoch and two evaluations", making, seconds, published, MNIST_TARGET)


def compare_cifar(workers: int, repeats: int) -> bool:
    """Times an epoch of the loader of CIFAR-10."""
    desc = TrainingDesc.default_for("mnist_lenet_20")
    parts = {part: random_images(cifar10.Dataset, 50_000 if part else 10_000, part) for part in (True, False)}
    making, (loader, _) = timed(loaders, cifar10.Dataset, desc, parts)
    seconds, _ = timed(lambda: run_through(loader.epoch(0)), repeats=repeats)
    theirs = PublishedDataset(cifar10.Dataset, parts[True], augment=True)
    published = {count: timed(run_through, published_loader(theirs, True, count))[0] for count in (0, workers)}
    return report("CIFAR-10 with crops and mirror images, the loader alone", making, seconds, published, CIFAR_TARGET)


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="Times an epoch of training and of loading against the published data path.")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the published path (default: 2)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours, of which the median counts (default: 3)")
    args = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {get_platform().torch_device}", flush=True)
    return int(not all([compare_mnist(args.workers, args.repeats), compare_cifar(args.workers, args.repeats)]))


if __name__ == "__main__":
    sys.exit(main())
