"""Tickets with random masks, as in *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019, arXiv:1803.03635)."""

from __future__ import annotations

from typing import Literal

from lottery.branch import base
from pruning import base as pruning
from pruning.mask import Mask
from pruning.random import uniform_score


class Branch(base.Branch):
    """Randomly prune the model.

    As many weights remain as in the levels, at random positions. Their initial values are those that the trunk rewinds to.
    """

    def branch_function(self, seed: int | None = None, strategy: Literal["layerwise", "global", "even", "identity"] = "layerwise") -> None:
        """Trains the weights that the trunk rewinds to, with a random mask.

        Args:
            seed: the seed of the mask (if left out, it is derived from --global_seed).
            strategy: the number of remaining weights per layer: as in the ticket (layerwise), random with the same total (global), or the
                same share in all layers (even); identity uses the mask of the ticket itself.
        """
        mask = self.mask if strategy == "identity" else self._shuffled(strategy, self.derived_seed(seed))
        self.train(self.trunk.rewound(), mask)

    def _shuffled(self, strategy: str, seed: int) -> Mask:
        """A random mask with as many remaining weights as the ticket in each network. Layers that the trunk does not prune are not pruned.

        With the same seed, the mask of a later level is a subset of the masks of earlier levels.
        """
        hparams, outline = self.lottery_desc.pruning_hparams, self.trunk.outline()
        layers = pruning.prunable_layers(hparams, outline)
        ticket, whole = (pruning.Problem(hparams, outline, mask, layers, seed=seed) for mask in (self.mask, Mask.ones_like(outline)))
        removed = {name: _difference(whole.remaining([name]), ticket.remaining([name])) for name in layers}
        total, mask, score = _difference(whole.remaining(layers), ticket.remaining(layers)), whole.mask, uniform_score(whole)
        if strategy == "global":
            return pruning.prune_lowest(mask, layers, score, total)
        if strategy == "even":
            removed = _evenly(total, {name: whole.remaining([name])[0] for name in layers})
        for name, counts in removed.items():
            mask = pruning.prune_lowest(mask, [name], score, counts)
        return mask


def _difference(first: list[int], second: list[int]) -> list[int]:
    """The elementwise difference."""
    return [a - b for a, b in zip(first, second, strict=True)]


def _evenly(total: list[int], sizes: dict[str, int]) -> dict[str, list[int]]:
    """The parts of each total in proportion to the sizes. They sum to the total, and differ from exact proportion by less than one."""
    whole, before, shares = sum(sizes.values()), 0, {}
    for name, size in sizes.items():
        after = before + size
        shares[name] = [count * after // whole - count * before // whole for count in total]
        before = after
    return shares
