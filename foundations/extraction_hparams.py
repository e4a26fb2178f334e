"""The hyperparameters of an extraction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foundations import step
from foundations.errors import unknown
from foundations.hparams import Hparams

LINKAGES = ("average", "complete", "single", "weighted")


@dataclass
class ExtractionHparams(Hparams):
    """How a network is read off its students; they are hashed on their own, so that the same students serve many."""

    gamma: float = 0.7
    beta: float = 6.0
    linkage: str = "average"
    boruta: str | None = None
    finetune_optimizer: str = "levenberg_marquardt"
    finetune_lr: float = 1.0
    finetune_training_steps: str = "60it"
    finetune_batch_size: int | None = None

    _name = "Extraction Hyperparameters"
    _description = "Clustering of the students' neurons, and fine-tuning of the network that they share."
    _gamma = "The share of the students that must have a neuron for it to count as the teacher's."
    _beta = "A cluster counts while the median angle between its neurons is at most pi/beta."
    _linkage = "How the distance of two clusters follows from those of their neurons."
    _boruta = "The dataset whose uninformative inputs, by the Boruta procedure, are left out of clustering and of the score."
    _finetune_optimizer = "The optimizer that fine-tunes the reconstructed network."
    _finetune_lr = "Its learning rate."
    _finetune_training_steps = "How long to fine-tune at most; it stops earlier when the loss is at the rounding floor."
    _finetune_batch_size = "Queries in a step of fine-tuning (when left out, twenty equations for each unknown, or all queries)."

    def __post_init__(self):
        self.require("gamma", 0 < self.gamma <= 1, "more than 0 and at most 1")
        self.require("beta", 1 <= self.beta < math.inf, "a finite number, 1 or more")
        if self.linkage not in LINKAGES:
            raise unknown("--linkage", self.linkage, LINKAGES)
        self.require("finetune_lr", 0 < self.finetune_lr < math.inf, "a finite number more than 0")
        self.require("finetune_batch_size", self.finetune_batch_size is None or self.finetune_batch_size >= 1, "1 or more")
        length = step.parse(self.finetune_training_steps, "--finetune_training_steps")
        self.require("finetune_training_steps", any(length), "1it or more")
