"""The hyperparameters of a model."""

from __future__ import annotations

from dataclasses import dataclass

from foundations.hparams import Hparams


@dataclass
class ModelHparams(Hparams):
    """Which network, and how its weights begin."""

    model_name: str
    model_init: str
    batchnorm_init: str
    act_fun: str = "relu"
    batchnorm_frozen: bool = False
    output_frozen: bool = False
    others_frozen: bool = False
    others_frozen_exceptions: str | None = None

    _name = "Model Hyperparameters"
    _description = "The network, its initialisation, and what of it stays as it begins."
    _model_name = "The model, such as digits_lenet_16 or students_digits_lenet(10)_64."
    _model_init = "How kernels begin."
    _batchnorm_init = "How BatchNorm scales begin."
    _act_fun = "The activation function of the hidden layers."
    _batchnorm_frozen = "Leave the scales and shifts of BatchNorm layers as they begin; their running statistics still follow the data."
    _output_frozen = "Leave the output layer as it begins."
    _others_frozen = "Leave everything else as it begins."
    _others_frozen_exceptions = (
        "Tensors that --others_frozen spares, by name and joined by commas, such as conv.weight,blocks.0.conv1.weight."
    )
