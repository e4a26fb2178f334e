"""What single queries tell of weights that others leave open, such as those from a column in which few queries differ.

Axes: Q queries, O outputs, F combinations, of which F' are told.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SPARED = 1e-6  # what the other queries must leave of a combination that a query tells, as a share, so that this query can be spared


@dataclass(frozen=True)
class Telling:
    """Queries, and what they tell.

    Attributes:
        places: of the queries among all, `[Q]`.
        changes: of their outputs, to first order, by changes of weights along the combinations, `[Q, O, F]`.
    """

    places: torch.Tensor
    changes: torch.Tensor

    @property
    def shares(self) -> torch.Tensor:
        """What each query tells, as a share of what all tell, summed over combinations: their statistical leverage, `[Q]`."""
        return self._told()[1].square().sum((1, 2))

    def most(self, count: int) -> torch.Tensor:
        """The places of the `count` queries that tell most."""
        return self.places[self.shares.topk(min(count, len(self.places))).indices.to(self.places.device)]

    def rare(self) -> Telling:
        """Those that tell more than the average."""
        shares = self.shares
        chosen = shares > shares.mean()
        return Telling(self.places[chosen.to(self.places.device)], self.changes[chosen])

    @property
    def is_plenty(self) -> bool:
        """Whether they tell all combinations in twice as many equations, and without any single query.

        Then it does not matter whether answers are exact. Where they are, one query to spare is enough.
        """
        queries, outputs, combinations = self.changes.shape
        return queries * outputs >= 2 * combinations and self.has_spare

    @property
    def has_spare(self) -> bool:
        """Whether they tell all combinations without any single query.

        Otherwise wrong weights along a combination could fit the few answers that tell them, and no other answer would refute them.
        """
        is_told, blocks = self._told()
        return bool(is_told.all()) and float(torch.linalg.matrix_norm(blocks, 2).square().max()) <= 1 - SPARED

    def _told(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Which principal combinations are told, `[F]`, and the changes along these, of unit length over all queries, `[Q, O, F']`."""
        values, vectors = torch.linalg.eigh(torch.einsum("qof,qog->fg", self.changes, self.changes))
        is_told = values > len(values) * torch.finfo(values.dtype).eps * values.max()
        return is_told, self.changes @ (vectors[:, is_told] / values[is_told].sqrt())
