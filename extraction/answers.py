"""What the answers tell of the outputs of the network behind them: their spread, output by output.

Axes: Q queries, O outputs.
"""

from __future__ import annotations

import torch


def spreads(answers: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each output, `[O]`, which is the unit of errors of that output.

    Errors in a common unit say nothing about an output of a smaller scale: with outputs of scale 1 and 1e-12, a network without the four
    neurons that feed the second output alone had an error of 1e-12 in the unit of the first.

    Args:
        answers: `[Q, O]`. An output that is constant gets the root mean square of all outputs' standard deviations, or 1 where all are
            constant.
    """
    variances = (answers - answers.mean(0)).square().mean(0)
    pooled = float(variances.mean()) or 1.0
    return torch.where(variances > 0, variances, pooled).sqrt()
