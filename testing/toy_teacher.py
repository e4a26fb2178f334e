"""A teacher that needs no training: a run folder in the format of `train` with random or given weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from foundations.step import Step
from models import registry as models
from platforms.platform import get_platform
from training.desc import TrainingDesc
from training.metric_logger import MetricLogger
from training.run_records import record


def make(
    model_name: str, act_fun: str = "relu", seed: int = 0, change: Callable[[torch.nn.Module], None] = lambda model: None
) -> tuple[str, torch.nn.Module]:
    """Writes a finished run of a model with random weights and biases.

    Args:
        model_name: such as `mlp_3_4_2`.
        act_fun: its activation function.
        seed: the seed of the weights, and the seed of the run.
        change: changes the weights of the model in place.

    Returns:
        The hash of the run, which needs `--teacher_seed`, and the network in float64.
    """
    desc = TrainingDesc.default_for(model_name)
    desc.model_hparams.act_fun = act_fun
    model = models.get(desc.model_hparams, seed=seed)
    change(model)
    location = desc.run_path(get_platform().root, seed)
    record(desc, location, seed, (model.sizes[0], model.sizes[-1]))
    model.save(location, Step(1, 1))
    MetricLogger().save(location)
    return desc.hashname, model.double()
