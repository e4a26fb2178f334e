"""Hypotheses of the network behind some answers: its depth and its activation function, as values, and the flags that name them.

A hypothesis is what the user of `extract` states by `--default_hparams` and `--act_fun`. Where these are not stated, or are `auto`, there
are several hypotheses, and `extraction/racing/race.py` finds the right one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams
from foundations.model_hparams import canonical_act_fun
from models.slopes import slope_of

AUTO = "auto"
DEPTHS = (1, 2, 3)
ACT_FUNS = ("relu", "leaky_relu", "tanh", "sigmoid", "softplus", "gelu", "silu", "g")
SAME_FUNCTIONS = {"sigmoid": "tanh"}  # sigmoid(x) = (1 + tanh(x / 2)) / 2, so that networks of one are networks of the other


@dataclass
class HypothesisArgs(Hparams):
    """What is known of the network beside `--act_fun`. It is no part of the name of a run."""

    depth: str | None = None

    _name = "Hypotheses"
    _description = "Without a model, or with --act_fun auto, several depths and activation functions are tried."
    _depth = f"The number of hidden layers: {AUTO} (the default without a model), or numbers from {DEPTHS[0]} to {DEPTHS[-1]} joined by +."


@dataclass(frozen=True, order=True)
class Hypothesis:
    """The number of hidden layers, their activation function, and the link of the answers; an empty link is that which is noticed.

    Hypotheses with fewer layers come first.
    """

    depth: int
    act_fun: str
    link: str = ""

    def __str__(self) -> str:
        layers = "layer" if self.depth == 1 else "layers"
        return f"{self.depth} hidden {layers} of {self.act_fun}{f' before {self.link}' if self.link else ''}"

    def students(self, count: int, width: int, shape: tuple[int, int]) -> str:
        """The name of a stack of students with this many neurons in each hidden layer; `shape` is the numbers of inputs and outputs."""
        inputs, outputs = shape
        return f"students_mlp({count})_{'_'.join(map(str, [inputs, *[width] * self.depth, outputs]))}"


def parse_depths(text: str | None) -> tuple[int, ...]:
    """The numbers of hidden layers that `--depth` names.

    Raises:
        ConfigError: the text names none.
    """
    if text in (None, AUTO):
        return DEPTHS
    parts = text.split("+")
    if not all(re.fullmatch(r"\d", part) and int(part) in DEPTHS for part in parts):
        valid = f"{AUTO}, or numbers from {DEPTHS[0]} to {DEPTHS[-1]} joined by +, such as 1+2"
        raise ConfigError(f"--depth: {text!r} is not a number of hidden layers; valid: {valid}")
    return tuple(sorted({int(part) for part in parts}))


def parse_act_funs(text: str | None) -> tuple[str, ...]:
    """The activation functions that `--act_fun` names, in the order of the table, without those whose networks are the same functions.

    Raises:
        ConfigError: one of them is not known.
    """
    names = (text or AUTO).split("+")
    for name in names:
        if name not in (*ACT_FUNS, AUTO) and slope_of(name) is None:
            raise unknown("--act_fun", name, [*ACT_FUNS, AUTO])
    others = sorted({canonical_act_fun(name) for name in names} - {*ACT_FUNS, AUTO})
    names = [*(ACT_FUNS if AUTO in names else [name for name in ACT_FUNS if name in names]), *others]
    return tuple(name for name in names if SAME_FUNCTIONS.get(name) not in names)


def hypotheses(depths: Sequence[int], act_funs: Sequence[str], links: Sequence[str] = ("",)) -> list[Hypothesis]:
    """All hypotheses with these depths, activation functions and links, those with fewer layers first."""
    return [Hypothesis(depth, act_fun, link) for depth in depths for link in links for act_fun in act_funs]


def are_kindred(act_fun: str, other: str) -> bool:
    """Whether two activation functions differ by a slope alone: relu and leaky_relu, with any slope."""
    return slope_of(act_fun) is not None and slope_of(other) is not None


def remark(act_fun: str) -> str:
    """What is to be said of a network with this activation function, a sentence; empty where there is nothing."""
    same = next((pair for pair in SAME_FUNCTIONS.items() if act_fun in pair), None)
    if same is None:
        return ""
    other = same[0] if act_fun == same[1] else same[1]
    return f"Networks of {act_fun} and of {other} are the same functions: no answers distinguish them. The network is given with {act_fun}."
