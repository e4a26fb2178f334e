"""The flags that every workflow of this framework has: defaults, seed, and what is shown."""

from __future__ import annotations

from dataclasses import dataclass

from foundations.errors import unknown
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN

TRACKER_MODES = ("online", "offline")


@dataclass
class JobArgs(Hparams):
    """What belongs to one run of an experiment and not to the experiment."""

    default_hparams: str | None = None
    global_seed: int = NOT_CHOSEN
    display_output_location: bool = False
    evaluate_only_at_end: bool = False
    quiet: bool = False
    tracker: str | None = None
    tracker_mode: str | None = None

    _name = "Job Arguments"
    _description = "Where hyperparameters start from, and what belongs to this run rather than to the experiment."
    _default_hparams = (
        "Fill in the hyperparameters that this model trains well with; flags beside it still win, and --help beside it shows them."
    )
    _global_seed = "The seed of everything random in the run. -1: one is drawn, recorded, and used again on resuming."
    _display_output_location = "Print where the results of this run are, or would be, and leave."
    _evaluate_only_at_end = "Evaluate before and after training only."
    _quiet = "Print nothing while running."
    _tracker = "Show telemetry while the run is at work; several are joined by +."
    _tracker_mode = "Whether wandb is online or offline (what WANDB_MODE says when left out)."

    def __post_init__(self):
        self.require("global_seed", self.global_seed >= NOT_CHOSEN, "-1 (not chosen) or more")
        if self.tracker_mode not in (None, *TRACKER_MODES):
            raise unknown("--tracker_mode", self.tracker_mode, TRACKER_MODES)
