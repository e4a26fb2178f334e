"""The hyperparameters of a model."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from foundations.hparams import Hparams, normalised


def canonical_act_fun(text: str) -> str:
    """The canonical text of an activation function: `leaky_relu:0.2` for `leaky_relu:0.20`."""
    name, colon, slope = text.partition(":")
    with contextlib.suppress(ValueError):
        return f"{name}:{float(slope)!r}" if colon else name
    return text


@dataclass
class ModelHparams(Hparams):
    """The network, its initialisation, and which of its parameters are not trained."""

    model_name: str
    model_init: str
    batchnorm_init: str
    act_fun: str = normalised(canonical_act_fun, "relu")
    batchnorm_frozen: bool = False
    output_frozen: bool = False
    others_frozen: bool = False
    others_frozen_exceptions: str | None = None

    _name = "Model Hyperparameters"
    _description = "The network, its initialisation, and which of its parameters are not trained."
    _model_name = "The model, such as digits_lenet_16 or students_digits_lenet(10)_64."
    _model_init = "Weight initialiser."
    _batchnorm_init = "Initialiser of BatchNorm scales."
    _act_fun = "The activation function of the hidden layers; leaky_relu:SLOPE, such as leaky_relu:0.2, for another slope than 0.01."
    _batchnorm_frozen = "Do not train the scales and shifts of BatchNorm layers. Their running statistics are still updated."
    _output_frozen = "Do not train the output layer."
    _others_frozen = "Do not train any parameter outside of BatchNorm layers and the output layer."
    _others_frozen_exceptions = (
        "Parameters that are trained in spite of --others_frozen: names joined by commas, such as conv.weight,blocks.0.conv1.weight."
    )
