"""Queries that cover a cube evenly."""

from __future__ import annotations

import torch
from torch.quasirandom import SobolEngine

from datasets.datagen.base import Policy, query_count
from datasets.datagen.uniform import BOUND
from foundations.errors import ConfigError

MAX_LATTICE_INPUTS = 3  # in more dimensions, a lattice of thousands of points has too few points along each side


class Grid(Policy):
    """Points that cover the cube [-sqrt(3), sqrt(3)]^inputs evenly; the policy `uniform` has the same range.

    The points are a regular lattice for up to three inputs, and a scrambled Sobol sequence for more. The shift of the lattice and the
    scrambling of the sequence are random, so that different sets of queries, such as those for training and test, have no common points.
    """

    def check(self, name: str, inputs: int, dataset_name: str | None) -> None:
        """Raises a ConfigError if the teacher has more inputs than a Sobol sequence can have dimensions."""
        if inputs > SobolEngine.MAXDIM:
            raise ConfigError(f"--datagen: {name} generates queries of at most {SobolEngine.MAXDIM} values; the teacher takes {inputs}")

    def generate(
        self, count: int | None, train: bool, inputs: int, generator: torch.Generator, dataset_name: str | None = None
    ) -> torch.Tensor:
        cover = lattice if inputs <= MAX_LATTICE_INPUTS else sobol
        return BOUND * (2 * cover(query_count(count, train), inputs, generator) - 1)


def lattice(count: int, inputs: int, generator: torch.Generator) -> torch.Tensor:
    """A regular lattice in the unit cube, `[count, inputs]`, shifted by one random vector.

    Without the shift each point is in the middle of its cell. The shift is at most a quarter of a cell along each axis, so that the points
    stay close to all faces of the cube.

    The sides of the lattice are as equal as possible. If the lattice has more than `count` points, the omitted points are spread evenly:
    each line along the last axis lacks at most one.
    """
    sides = lattice_sides(count, inputs)
    indices = torch.arange(count) * sides.prod() // count
    cells = torch.stack(torch.unravel_index(indices, sides.tolist()), 1)
    return (cells + 0.25 + torch.rand(inputs, generator=generator) / 2) / sides


def lattice_sides(count: int, inputs: int) -> torch.Tensor:
    """Points along each axis, `[inputs]`, in descending order: each is the smallest number that is not exceeded on a later axis."""
    sides, remaining = [], count
    for axes in range(inputs, 0, -1):
        side = round(remaining ** (1 / axes))
        side += side**axes < remaining
        sides.append(side)
        remaining = -(-remaining // side)
    return torch.tensor(sides)


def sobol(count: int, inputs: int, generator: torch.Generator) -> torch.Tensor:
    """The first points of a scrambled Sobol sequence in the unit cube, `[count, inputs]`."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator).item())
    return SobolEngine(inputs, scramble=True, seed=seed).draw(count)
