"""Names of activation functions that are linear on both sides of 0, and their slopes below 0; without torch, for the command line."""

from __future__ import annotations

import contextlib

LEAKY_SLOPE = 0.01
KINKED = {"relu": 0.0, "leaky_relu": LEAKY_SLOPE}


def slope_of(name: str) -> float | None:
    """The slope below 0 of a function that is linear on both sides of 0: relu, leaky_relu, or leaky_relu:SLOPE; None for others.

    The slope that is stated is more than 0 and less than 1.
    """
    if name in KINKED:
        return KINKED[name]
    family, _, text = name.partition(":")
    with contextlib.suppress(ValueError):
        if family == "leaky_relu" and 0 < float(text) < 1:
            return float(text)
    return None


def with_slope(slope: float) -> str:
    """The name of the function that is x above 0 and `slope * x` below; `slope` is at least 0 and less than 1."""
    return next((name for name, known in KINKED.items() if known == slope), f"leaky_relu:{slope!r}")
