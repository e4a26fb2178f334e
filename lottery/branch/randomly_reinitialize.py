"""Tickets with other weights to start from, as in *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019, arXiv:1803.03635)."""

from __future__ import annotations

from lottery.branch import base


class Branch(base.Branch):
    """Randomly reinitialize the model.

    The mask is that of each level, the weights are fresh.
    """

    def branch_function(self, seed: int | None = None, start_at_step_zero: bool = False) -> None:
        """Trains fresh weights under the mask of the level.

        Args:
            seed: the seed of the weights (when left out, it follows from --global_seed).
            start_at_step_zero: train from step 0, where the trunk starts from a later step.
        """
        self.train(self.trunk.new(self.derived(seed)), self.mask, from_zero=start_at_step_zero)
