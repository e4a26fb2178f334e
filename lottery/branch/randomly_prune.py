"""Tickets with other weights left, as in *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019, arXiv:1803.03635)."""

from __future__ import annotations

from typing import Literal

from lottery.branch import base
from pruning import base as pruning
from pruning.mask import Mask
from pruning.random import Strategy


class Branch(base.Branch):
    """Randomly prune the model.

    As many weights are left as at each level, at other places, with the values that the trunk rewinds to.
    """

    def branch_function(self, seed: int | None = None, strategy: Literal["layerwise", "global", "even", "identity"] = "layerwise") -> None:
        """Trains what a random mask leaves of the weights that the trunk rewinds to.

        Args:
            seed: the seed of the mask (when left out, it follows from --global_seed).
            strategy: how many weights are left in each layer: as many as in the ticket (layerwise), whatever chance leaves (global), the
                same share (even), or the very mask of the ticket (identity).
        """
        mask = self.mask if strategy == "identity" else self._shuffled(strategy, self.derived(seed))
        self.train(self.trunk.rewound(), mask)

    def _shuffled(self, strategy: str, seed: int) -> Mask:
        """A random mask with as many weights as the ticket in each network; layers that the trunk does not prune stay whole.

        With the same seed, the mask of a later level is a part of those before.
        """
        hparams, outline = self.lottery_desc.pruning_hparams, self.trunk.outline()
        layers = pruning.prunable_layers(hparams, outline)
        ticket, whole = (pruning.Problem(hparams, outline, mask, layers, seed=seed) for mask in (self.mask, Mask.ones_like(outline)))
        gone = {name: _difference(whole.remaining([name]), ticket.remaining([name])) for name in layers}
        total, mask, score = _difference(whole.remaining(layers), ticket.remaining(layers)), whole.mask, Strategy.score(whole)
        if strategy == "global":
            return pruning.prune_lowest(mask, layers, score, total)
        if strategy == "even":
            gone = _evenly(total, {name: whole.remaining([name])[0] for name in layers})
        for name, counts in gone.items():
            mask = pruning.prune_lowest(mask, [name], score, counts)
        return mask


def _difference(first: list[int], second: list[int]) -> list[int]:
    return [a - b for a, b in zip(first, second, strict=True)]


def _evenly(total: list[int], sizes: dict[str, int]) -> dict[str, list[int]]:
    """Parts of each total that are in proportion to some sizes, to within one, and add up to it."""
    whole, before, shares = sum(sizes.values()), 0, {}
    for name, size in sizes.items():
        after = before + size
        shares[name] = [count * after // whole - count * before // whole for count in total]
        before = after
    return shares
