"""The table of query policies, and the syntax of `--datagen`. To add a policy, add a row; every image dataset is a policy.

A datagen string joins policies by `+`. A policy can have parameters and then a count: `digits+random:4000`, `box:-1:1:4000`.
"""

from __future__ import annotations

import math
import re

import torch

from datasets.datagen.base import FinitePolicy, Policy
from datasets.datagen.gaussian import Gaussian, Normal
from datasets.datagen.grid import Grid
from datasets.datagen.images import Images
from datasets.datagen.uniform import Box, Uniform
from datasets.datagen.variations import Biased, Mosaic
from datasets.image_registry import registered_images
from foundations.errors import ConfigError, unknown
from foundations.seeds import derive
from platforms.platform import get_platform

registered_policies: dict[str, Policy] = {
    **{name: Images(module.Dataset) for name, module in registered_images.items()},
    "random": Gaussian(),
    "wide": Gaussian(std=3.0),
    "uniform": Uniform(),
    "normal": Normal(),
    "box": Box(),
    "grid": Grid(),
    "biased": Biased(),
    "mosaic": Mosaic(),
}

DEFAULT_COUNT = 4000
QUERY_BYTES = 8  # of each value of a query
GIGABYTE = 10**9


def parse(datagen: str) -> dict[str, int | None]:
    """The policies in a datagen string with their counts, sorted by name.

    Raises:
        ConfigError: a policy is unknown or occurs twice, or a count is not a positive whole number.
    """
    policies: dict[str, int | None] = {}
    for part in datagen.split("+"):
        name, *texts = part.split(":")
        if name not in registered_policies:
            raise unknown("--datagen", name, registered_policies)
        wanted = registered_policies[name].parameters
        count, has_count = ":".join(texts[len(wanted) :]), len(texts) > len(wanted)
        if wanted:
            name = _with_parameters(name, texts[: len(wanted)])
        if name in policies:
            raise ConfigError(f"--datagen: {name} occurs twice in {datagen!r}; write it once with one count, such as {name}:8000")
        if has_count and not re.fullmatch(r"[1-9]\d{0,17}", count):
            raise ConfigError(f"--datagen: {count!r} is not a count in {datagen!r}; valid: a positive whole number, such as {name}:4000")
        policies[name] = int(count) if count else None
    return dict(sorted(policies.items()))


def _with_parameters(name: str, texts: list[str]) -> str:
    """The canonical name of a policy with parameters: `box:-1:1`; a ConfigError if one is missing or invalid."""
    policy, shown = registered_policies[name], ":".join([name, *texts])
    written = ":".join([name, *policy.parameters])
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if len(values) < len(policy.parameters) or not all(map(math.isfinite, values)):
        raise ConfigError(f"--datagen: {shown!r} is incomplete; valid: {written} or {written}:COUNT, with finite numbers")
    try:
        policy.with_parameters(*values)
    except ValueError as error:
        raise ConfigError(f"--datagen: {shown!r} is invalid: {error}") from None
    return ":".join([name, *(repr(value).removesuffix(".0").replace("e+", "e") for value in values)])


def names() -> list[str]:
    """The policies with their parameters, as they are written."""
    return [":".join([name, *policy.parameters]) for name, policy in registered_policies.items()]


def policy_of(name: str) -> Policy:
    """The policy with a canonical name, which may contain parameters."""
    first, *texts = name.split(":")
    return registered_policies[first].with_parameters(*map(float, texts)) if texts else registered_policies[first]


def resolve(datagen: str, inputs: int, samples: int | None = None, dataset_name: str | None = None) -> str:
    """The canonical datagen string: policies sorted by name, and a count for every policy that is not finite.

    Args:
        datagen: the string of the user.
        inputs: the number of inputs of the teacher.
        samples: the total number of queries. Policies without a count share the remaining queries; if None, each has DEFAULT_COUNT.
        dataset_name: the dataset that the teacher was trained on; None if unknown. The canonical string does not contain it.

    Raises:
        ConfigError: the string is malformed, a policy cannot generate queries for this teacher, or the counts do not add up to `samples`.
    """
    policies = parse(datagen)
    for name, count in policies.items():
        policy = policy_of(name)
        policy.check(name, inputs, dataset_name)
        if count is not None and isinstance(policy, FinitePolicy) and count > policy.size():
            raise ConfigError(f"--datagen: {name} has {policy.size()} queries, fewer than {count}; valid: up to {policy.size()}")
    without_count = [name for name, count in policies.items() if count is None and not isinstance(policy_of(name), FinitePolicy)]
    if samples is None:
        policies.update(dict.fromkeys(without_count, DEFAULT_COUNT))
    else:
        fixed = sum(_fixed_count(name, count) for name, count in policies.items())
        if fixed + len(without_count) > samples or (not without_count and fixed != samples):
            valid = f"{fixed + len(without_count)} or more" if without_count else str(fixed)
            raise ConfigError(f"--samples: {samples} does not fit --datagen {datagen}; valid: {valid}")
        for index, name in enumerate(without_count):
            policies[name] = (samples - fixed + index) // len(without_count)
    needed = QUERY_BYTES * inputs * sum(filter(None, policies.values()))
    if needed > get_platform().memory_bytes:
        sizes = f"need {needed / GIGABYTE:,.0f} GB; valid: up to the {get_platform().memory_bytes / GIGABYTE:,.0f} GB of memory"
        raise ConfigError(f"--datagen: the queries of {datagen:.80} {sizes}")
    return "+".join(name if count is None else f"{name}:{count}" for name, count in policies.items())


def training_queries(datagen: str) -> int:
    """The number of training queries of a canonical datagen string."""
    return sum(_fixed_count(name, count) for name, count in parse(datagen).items())


def _fixed_count(name: str, count: int | None) -> int:
    """The number of training queries of a policy: its count, or all queries of a finite policy; 0 if neither is defined."""
    policy = policy_of(name)
    return count or (policy.size() if isinstance(policy, FinitePolicy) else 0)


def generate(datagen: str, train: bool, inputs: int, seed: int, dataset_name: str | None = None) -> torch.Tensor:
    """The queries of a canonical datagen string, `[n, inputs]`. Each policy has a random stream of its own.

    Args:
        datagen: the string that `resolve` returned.
        train: True for training queries, False for test queries.
        inputs: the number of inputs of the teacher.
        seed: the seed of the run.
        dataset_name: the dataset that the teacher was trained on; None if unknown.
    """
    parts = []
    for name, count in parse(datagen).items():
        generator = torch.Generator().manual_seed(derive(seed, "queries", name, train))
        parts.append(policy_of(name).generate(count, train, inputs, generator, dataset_name))
    return torch.cat(parts)
