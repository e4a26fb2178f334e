"""The inputs that a teacher may be asked during an extraction.

Axes: N queries, D columns of the user's inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

import torch

from extraction.session import Session
from foundations.extraction_hparams import parse_domain

TOP_CORNERS = 64  # corners that are asked


@dataclass(frozen=True)
class Box:
    """The inputs that may be asked: between bounds `[D]`, which can be widened up to others."""

    low: torch.Tensor
    high: torch.Tensor
    limits: tuple[float, float] | None = None

    @classmethod
    def of(cls, session: Session) -> Box:
        """The box of the queries for training, within the domain where the user has given one."""
        queries = (session.own or session.loaders).train.examples
        domain = session.desc.extraction_hparams.domain
        limits = parse_domain(domain) if domain else None
        low, high = queries.amin(0), queries.amax(0)
        return cls(low, high, limits) if limits is None else cls(low.clamp(*limits), high.clamp(*limits), limits)

    @property
    def wider(self) -> Box | None:
        """The box of twice the size within the limits; None where there is no wider one. Columns that no query varies stay constant."""
        if self.limits is None:
            return None
        half = (self.high - self.low) / 2
        low, high = (self.low - half).clamp(*self.limits), (self.high + half).clamp(*self.limits)
        same = torch.equal(low, self.low) and torch.equal(high, self.high)
        return None if same else dataclasses.replace(self, low=low, high=high)

    @property
    def shown(self) -> str:
        """The bounds as text."""
        low, high = float(self.low.min()), float(self.high.max())
        return f"{low:.3g} and {high:.3g}"

    def corners(self, generator: torch.Generator) -> torch.Tensor:
        """Its corners, at most TOP_CORNERS, `[N, D]`."""
        varied = (self.high > self.low).nonzero()[:, 0]
        if 2 ** len(varied) <= TOP_CORNERS:
            signs = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(varied))), dtype=self.low.dtype)
        else:
            signs = torch.randint(2, (TOP_CORNERS, len(varied)), generator=generator).to(self.low.dtype)
        shares = torch.zeros(len(signs), len(self.low), dtype=self.low.dtype, device=self.low.device)
        shares[:, varied] = signs.to(self.low)
        return self.low + (self.high - self.low) * shares
