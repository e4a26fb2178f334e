"""What of a model stays as it begins: `--batchnorm_frozen`, `--output_frozen`, `--others_frozen`.

A frozen parameter needs no gradient, so that no optimizer gets to see it, and no momentum or weight decay moves it. The running
statistics of BatchNorm are not parameters and follow the data all the same.
"""

from __future__ import annotations

from torch import nn

from foundations.errors import ConfigError, did_you_mean
from foundations.model_hparams import ModelHparams
from models.base import Model

SHOWN = 3  # names of tensors that an error gives as examples


def freeze(model: Model, model_hparams: ModelHparams) -> None:
    """Freezes, in place, what the hyperparameters say.

    Raises:
        ConfigError: an exception is no parameter of the model.
    """
    norms = {
        f"{name}.{own}"
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for own, _ in module.named_parameters()
    }
    spared = exceptions(model, model_hparams)
    for name, parameter in model.named_parameters():
        if name in norms:
            frozen = model_hparams.batchnorm_frozen
        elif name in model.output_layer_names:
            frozen = model_hparams.output_frozen
        else:
            frozen = model_hparams.others_frozen and name not in spared
        parameter.requires_grad_(not frozen)


def exceptions(model: Model, model_hparams: ModelHparams) -> list[str]:
    """The names in `--others_frozen_exceptions`, checked."""
    if model_hparams.others_frozen_exceptions is None:
        return []
    names = [name.strip() for name in model_hparams.others_frozen_exceptions.split(",")]
    valid = [name for name, _ in model.named_parameters()]
    for name in names:
        if name not in valid:
            examples = f"{', '.join(valid[:SHOWN])}, ... {valid[-1]}" if len(valid) > SHOWN + 1 else ", ".join(valid)
            raise ConfigError(
                f"--others_frozen_exceptions: {name!r} is no parameter of {model_hparams.model_name}{did_you_mean(name, valid)}; "
                f"valid: {examples}"
            )
    return names


def check(model: Model, model_hparams: ModelHparams) -> None:
    """Raises a ConfigError where a frozen model cannot be meant: there is nothing left to train, or an exception from nothing."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        flags = [name for name in ("batchnorm_frozen", "output_frozen", "others_frozen") if getattr(model_hparams, name)]
        raise ConfigError(
            f"{' '.join(f'--{name}' for name in flags)} leaves nothing of {model_hparams.model_name} to train; "
            "leave one of them out, or name what is spared in --others_frozen_exceptions"
        )
    if model_hparams.others_frozen_exceptions is not None and not model_hparams.others_frozen:
        raise ConfigError("--others_frozen_exceptions: there is nothing to be excepted from; add --others_frozen")
