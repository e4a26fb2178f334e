"""A network of unknown depth and activation function from derivatives, before a race of hypotheses begins.

What derivatives have found is an ordinary extraction, with students of the right depth and activation function in its name. So that the
same command finds it again without computing anything, the architecture is kept in a small file next to the ledger, or the reason why there
is none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from extraction.derivatives.result import Recovery
from extraction.desc import ExtractionDesc
from extraction.live import derived
from extraction.network import stack_name
from extraction.runner import ExtractionRunner
from foundations import json_text
from foundations.errors import reason
from foundations.extraction_hparams import DERIVATIVES, STUDENTS
from platforms.platform import get_platform
from platforms.system import files

COUNT, FACTOR = 10, 4  # students in the name of the extraction, and their widths as multiples of those of the network
REMEDY = "delete it and run the same command again"


@dataclass(frozen=True)
class Architecture:
    """What is known of a network after derivatives were tried.

    Attributes:
        sizes: the number of inputs, then the width of each layer; empty where derivatives found no network.
        act_fun: the activation function; empty likewise.
        lacks: why there is no network.
        queries: how many were asked.
    """

    sizes: list[int]
    act_fun: str
    lacks: list[str]
    queries: int

    @classmethod
    def of(cls, recovery: Recovery) -> Architecture:
        """The architecture of a network that derivatives found, or the reason why there is none."""
        layers = recovery.layers
        return cls(layers.sizes if layers else [], layers.act_fun if layers else "", list(recovery.lacks), recovery.queries)

    @property
    def students(self) -> str:
        """The name of students of such a network."""
        inputs, *hidden, outputs = self.sizes
        return stack_name(COUNT, [inputs, *(FACTOR * width for width in hidden), outputs])

    def as_given(self, changes: Mapping[str, Mapping[str, Any]]) -> ExtractionDesc:
        """The hyperparameters of the ordinary extraction, with changes by bundle and field."""
        desc = ExtractionDesc.default_for(self.students)
        bundles = {bundle: dataclasses.replace(getattr(desc, bundle), **values) for bundle, values in changes.items()}
        bundles["model_hparams"].act_fun = self.act_fun
        return ExtractionDesc(**bundles)

    def without_derivatives(self, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Changes of hyperparameters for students alone, which have what derivatives have left of the budget."""
        changed = {bundle: dict(values) for bundle, values in changes.items()}
        changed["extraction_hparams"]["seeds_from"] = STUDENTS
        budget = changed["dataset_hparams"].get("query_budget")
        if budget is not None:
            changed["dataset_hparams"]["query_budget"] = budget - self.queries
        return changed


def path_of(extraction: ExtractionRunner) -> str:
    """The file of what derivatives have found, for the teacher, the budget and the domain of an extraction."""
    h = extraction.desc
    settings = (h.dataset_hparams.query_budget, h.extraction_hparams.domain, h.extraction_hparams.seeds_from, h.model_hparams.act_fun)
    digest = hashlib.md5(repr(settings).encode()).hexdigest()
    return os.path.join(get_platform().root, f"{extraction.teacher.name}.{DERIVATIVES}_{digest}")


def recorded(extraction: ExtractionRunner) -> Architecture | None:
    """What derivatives have found before; None if they were not tried.

    Raises:
        ConfigError: the file is damaged.
    """
    path = path_of(extraction)
    if not get_platform().exists(path):
        return None
    content = files.read_json(path, REMEDY)
    try:
        found = Architecture(**content)
        if not (found.lacks or len(found.sizes) > 2):
            raise ValueError("it names no network")
        return found
    except (TypeError, ValueError) as error:
        raise files.damaged(path, reason(error), REMEDY) from None


def attempt(extraction: ExtractionRunner) -> Recovery:
    """What derivatives find, which is recorded; errors as in `derived.attempt`."""
    extraction.prepare()
    recovery = derived.attempt(extraction.desc, extraction.teacher)
    content = json_text.dumps(dataclasses.asdict(Architecture.of(recovery)), indent=2) + "\n"
    get_platform().on_primary(lambda: get_platform().write(path_of(extraction), content))
    return recovery
