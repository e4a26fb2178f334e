"""Frozen parameters keep their initial values: `--batchnorm_frozen`, `--output_frozen`, `--others_frozen`.

A frozen parameter has `requires_grad=False`. Optimizers do not receive it, so that neither momentum nor weight decay changes it. The
running statistics of BatchNorm are not parameters: training updates them even if `--batchnorm_frozen` is set.
"""

from __future__ import annotations

from torch import nn

from foundations.errors import ConfigError, did_you_mean
from foundations.model_hparams import ModelHparams
from models.base import Model

MAX_EXAMPLES = 3  # names of tensors in an error message


def freeze(model: Model, model_hparams: ModelHparams) -> None:
    """Freezes parameters of a model, in place, according to the hyperparameters.

    Raises:
        ConfigError: a name in `--others_frozen_exceptions` is not a parameter of the model.
    """
    norms = {
        f"{name}.{parameter_name}"
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for parameter_name, _ in module.named_parameters()
    }
    trainable = exceptions(model, model_hparams)
    for name, parameter in model.named_parameters():
        if name in norms:
            frozen = model_hparams.batchnorm_frozen
        elif name in model.output_layer_names:
            frozen = model_hparams.output_frozen
        else:
            frozen = model_hparams.others_frozen and name not in trainable
        parameter.requires_grad_(not frozen)


def exceptions(model: Model, model_hparams: ModelHparams) -> list[str]:
    """The parameter names in `--others_frozen_exceptions`; a ConfigError if one of them does not exist."""
    if model_hparams.others_frozen_exceptions is None:
        return []
    names = [name.strip() for name in model_hparams.others_frozen_exceptions.split(",")]
    valid = [name for name, _ in model.named_parameters()]
    for name in names:
        if name not in valid:
            examples = f"{', '.join(valid[:MAX_EXAMPLES])}, ... {valid[-1]}" if len(valid) > MAX_EXAMPLES + 1 else ", ".join(valid)
            raise ConfigError(
                f"--others_frozen_exceptions: {name!r} is not a parameter of {model_hparams.model_name}{did_you_mean(name, valid)}; "
                f"valid: {examples}"
            )
    return names


def check(model: Model, model_hparams: ModelHparams) -> None:
    """Raises a ConfigError if all parameters are frozen, or if `--others_frozen_exceptions` is used without `--others_frozen`."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        flags = [name for name in ("batchnorm_frozen", "output_frozen", "others_frozen") if getattr(model_hparams, name)]
        raise ConfigError(
            f"{' '.join(f'--{name}' for name in flags)} freezes all parameters of {model_hparams.model_name}; "
            "omit one of the flags, or name trainable parameters in --others_frozen_exceptions"
        )
    if model_hparams.others_frozen_exceptions is not None and not model_hparams.others_frozen:
        raise ConfigError("--others_frozen_exceptions: has no effect without --others_frozen; add --others_frozen")
