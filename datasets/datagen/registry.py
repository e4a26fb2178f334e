"""The policies of `--datagen`: where the queries come from. Every image dataset is one by itself; any other new one is a line here.

A datagen string is policies joined by `+`, each with an optional count: `digits+random:4000`.
"""

from __future__ import annotations

import re

import torch

from datasets.datagen.gaussian import Gaussian
from datasets.datagen.grid import Grid
from datasets.datagen.images import Images
from datasets.datagen.uniform import Uniform
from datasets.datagen.variations import Biased, Mosaic
from datasets.image_registry import registered_images
from foundations.errors import ConfigError, unknown
from foundations.seeds import derive

registered_policies = {
    **{name: Images(module.Dataset) for name, module in registered_images.items()},
    "random": Gaussian(),
    "wide": Gaussian(spread=3.0),
    "uniform": Uniform(),
    "grid": Grid(),
    "biased": Biased(),
    "mosaic": Mosaic(),
}

DEFAULT_COUNT = 4000


def parse(datagen: str) -> dict[str, int | None]:
    """The policies of a datagen string with their counts, sorted by name.

    Raises:
        ConfigError: a policy is not known or named twice, or a count is no positive number.
    """
    policies: dict[str, int | None] = {}
    for part in datagen.split("+"):
        name, _, count = part.partition(":")
        if name not in registered_policies:
            raise unknown("--datagen", name, registered_policies)
        if name in policies:
            raise ConfigError(f"--datagen: {name} is named twice in {datagen!r}; give it one count, such as {name}:8000")
        if ":" in part and not re.fullmatch(r"[1-9]\d*", count):
            raise ConfigError(f"--datagen: {count!r} is no count in {datagen!r}; write {name}:4000")
        policies[name] = int(count) if count else None
    return dict(sorted(policies.items()))


def resolve(datagen: str, inputs: int, samples: int | None = None, source: str | None = None) -> str:
    """The canonical datagen string: sorted, and with a count for every policy that generates.

    Args:
        datagen: as the user wrote it.
        inputs: values a query must have.
        samples: queries in all; policies that generate and have no count share what is left. Without it they make DEFAULT_COUNT each.
        source: the dataset that the teacher was trained on, where that is known; it follows from the teacher, so the string leaves it out.

    Raises:
        ConfigError: the string is malformed, a policy cannot serve this teacher, or the counts do not come to `samples`.
    """
    policies = parse(datagen)
    for name, count in policies.items():
        registered_policies[name].check(name, inputs, source)
        if count is not None and registered_policies[name].is_finite and count > registered_policies[name].size():
            raise ConfigError(f"--datagen: {name} has {registered_policies[name].size()} queries; {count} were asked for")
    open_ended = [name for name, count in policies.items() if count is None and not registered_policies[name].is_finite]
    if samples is None:
        policies.update(dict.fromkeys(open_ended, DEFAULT_COUNT))
    else:
        fixed = sum(count or registered_policies[name].size() for name, count in policies.items() if name not in open_ended)
        if fixed + len(open_ended) > samples or (not open_ended and fixed != samples):
            least = f"{fixed + len(open_ended)} or more" if open_ended else str(fixed)
            raise ConfigError(f"--samples: {samples} does not fit --datagen {datagen}; valid: {least}")
        for place, name in enumerate(open_ended):
            policies[name] = (samples - fixed + place) // len(open_ended)
    return "+".join(name if count is None else f"{name}:{count}" for name, count in policies.items())


def make(datagen: str, train: bool, inputs: int, seed: int, source: str | None = None) -> torch.Tensor:
    """The queries of a resolved datagen string, `[n, inputs]`; each policy draws from its own stream of the run's seed.

    Args:
        datagen: as `resolve` returned it.
        train: whether queries to learn from are meant, or those to be tested on.
        inputs: values a query must have.
        seed: the run's.
        source: the dataset that the teacher was trained on, as `resolve` was given it.
    """
    parts = []
    for name, count in parse(datagen).items():
        generator = torch.Generator().manual_seed(derive(seed, "queries", name, train))
        parts.append(registered_policies[name].make(count, train, inputs, generator, source))
    return torch.cat(parts)
