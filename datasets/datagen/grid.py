"""Queries that are spread evenly."""

from __future__ import annotations

import torch
from torch.quasirandom import SobolEngine

from datasets.datagen.base import Policy, generated
from datasets.datagen.uniform import EDGE
from foundations.errors import ConfigError

LATTICE_INPUTS = 3  # from the next dimension on, a lattice of thousands of points has too few along each side


class Grid(Policy):
    """Points spread evenly over the cube [-sqrt(3), sqrt(3)]^inputs, the range of the policy `uniform`.

    Up to three inputs they are a regular lattice, beyond that a scrambled Sobol sequence. The shift of the one and the scrambling of the
    other are random, so that no two sets of queries, such as those for training and for test, coincide.
    """

    def check(self, name: str, inputs: int, source: str | None) -> None:
        """Raises a ConfigError where no Sobol sequence has so many dimensions."""
        if inputs > SobolEngine.MAXDIM:
            raise ConfigError(f"--datagen: {name} makes queries of {SobolEngine.MAXDIM} values at most; the teacher takes {inputs}")

    def make(self, count: int, train: bool, inputs: int, generator: torch.Generator, source: str | None = None) -> torch.Tensor:
        spread = lattice if inputs <= LATTICE_INPUTS else sobol
        return EDGE * (2 * spread(generated(count, train), inputs, generator) - 1)


def lattice(count: int, inputs: int, generator: torch.Generator) -> torch.Tensor:
    """A regular lattice in the unit cube, `[count, inputs]`, all of it shifted by one random vector.

    Without the shift each point would be in the middle of its cell; it is at most a quarter of a cell along each axis, so that no face of
    the cube is left far from the points.

    The sides of the lattice are as equal as the count allows. Where it has more points than are asked for, those left out are spread
    evenly over it: no line along the last axis lacks more than one.
    """
    sides = lattice_sides(count, inputs)
    places = torch.arange(count) * sides.prod() // count
    cells = torch.stack(torch.unravel_index(places, sides.tolist()), 1)
    return (cells + 0.25 + torch.rand(inputs, generator=generator) / 2) / sides


def lattice_sides(count: int, inputs: int) -> torch.Tensor:
    """Points along each axis, `[inputs]`, largest first: each is the smallest that lets the axes after it be no longer."""
    sides, left = [], count
    for axes in range(inputs, 0, -1):
        side = round(left ** (1 / axes))
        side += side**axes < left
        sides.append(side)
        left = -(-left // side)
    return torch.tensor(sides)


def sobol(count: int, inputs: int, generator: torch.Generator) -> torch.Tensor:
    """The first points of a scrambled Sobol sequence in the unit cube, `[count, inputs]`."""
    seed = torch.randint(2**63 - 1, (), generator=generator).item()
    return SobolEngine(inputs, scramble=True, seed=seed).draw(count)
