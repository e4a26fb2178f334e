"""Tickets with other initial weights, as in *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019, arXiv:1803.03635)."""

from __future__ import annotations

from lottery.branch import base


class Branch(base.Branch):
    """Randomly reinitialize the model.

    Masks are those of the levels; weights are newly initialised.
    """

    def branch_function(self, seed: int | None = None, start_at_step_zero: bool = False) -> None:
        """Trains newly initialised weights with the mask of the level.

        Args:
            seed: the seed of the weights (if left out, it is derived from --global_seed).
            start_at_step_zero: train from step 0, even if the experiment starts at a later step.
        """
        self.train(self.trunk.new(self.derived_seed(seed)), self.mask, from_zero=start_at_step_zero)
