"""The hyperparameters of an extraction."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from foundations import limits, step
from foundations.errors import unknown
from foundations.hparams import Hparams, normalised

LINKAGES = ("average", "complete", "single", "weighted")


@dataclass
class ExtractionHparams(Hparams):
    """How the network is reconstructed from its students. Their hash is separate, so that several extractions can share students."""

    gamma: float = 0.7
    beta: float = 6.0
    _: dataclasses.KW_ONLY  # the published code has other fields from here on
    linkage: str = "average"
    boruta: str | None = None
    finetune_optimizer: str = "levenberg_marquardt"
    finetune_lr: float = 1.0
    finetune_training_steps: str = normalised(step.canonical, "60it")
    finetune_batch_size: int | None = None

    _name = "Extraction Hyperparameters"
    _description = "Clustering of the students' neurons, and fine-tuning of the reconstructed network."
    _gamma = "A cluster is accepted only if it contains neurons of at least this fraction of the students."
    _beta = "A cluster is accepted only if the median angle between its neurons is at most pi/beta."
    _linkage = "How the distance between two clusters is computed from the distances between their neurons."
    _boruta = (
        "A dataset. The inputs that the Boruta procedure finds uninformative on it are left out of clustering and of the comparison with "
        "the teacher."
    )
    _finetune_optimizer = "The optimizer that fine-tunes the reconstructed network."
    _finetune_lr = "The learning rate of fine-tuning."
    _finetune_training_steps = "The maximum length of fine-tuning. It stops earlier if the loss reaches the rounding floor."
    _finetune_batch_size = (
        "Queries per step of fine-tuning (by default as many as give twenty equations per unknown, or all queries if there are fewer)."
    )

    def __post_init__(self):
        self.require("gamma", 0 < self.gamma <= 1, "more than 0 and at most 1")
        self.require("beta", 1 <= self.beta < math.inf, "a finite number, 1 or more")
        if self.linkage not in LINKAGES:
            raise unknown("--linkage", self.linkage, LINKAGES)
        self.require("finetune_lr", 0 < self.finetune_lr < math.inf, "a finite number more than 0")
        is_valid = self.finetune_batch_size is None or 1 <= self.finetune_batch_size <= limits.EXAMPLES
        self.require("finetune_batch_size", is_valid, f"1 to {limits.EXAMPLES:,}, because a batch is in memory as a whole")
        length = step.parse(self.finetune_training_steps, "--finetune_training_steps")
        self.require("finetune_training_steps", any(length), "1it or more")
