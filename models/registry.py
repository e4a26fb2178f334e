"""Every model family, and the ways to a model: by name, or from a file."""

from __future__ import annotations

import inspect
import os
import re
import types

import torch

from foundations import paths
from foundations.defaults import DefaultHparams
from foundations.errors import ConfigError, did_you_mean, reason, unknown
from foundations.model_hparams import ModelHparams
from foundations.seeds import derive
from foundations.step import Step
from models import (
    activation_functions,
    base,
    bn_initializers,
    cifar_lenet,
    cifar_resnet,
    cifar_vgg,
    digits_lenet,
    freezing,
    imagenet_resnet,
    initializers,
    mlp,
    mnist_lenet,
    students,
)
from platforms.platform import get_platform

registered_models: list[type[base.Model]] = [
    digits_lenet.Model,
    mnist_lenet.Model,
    cifar_lenet.Model,
    cifar_vgg.Model,
    cifar_resnet.Model,
    imagenet_resnet.Model,
    mlp.Model,
    students.Model,
]
LONGEST_NAME = 1000  # characters


def functions(module: types.ModuleType) -> dict[str, base.Initializer]:
    """The functions that a module of initializers defines, by name."""
    return dict(inspect.getmembers(module, lambda value: inspect.isfunction(value) and value.__module__ == module.__name__))


def choices() -> dict[str, list[str]]:
    """What the fields of ModelHparams with a closed list accept, for help."""
    return {
        "model_name": [rule for family in registered_models for rule in family.name_rules()],
        "model_init": list(functions(initializers)),
        "batchnorm_init": list(functions(bn_initializers)),
        "act_fun": list(activation_functions.activation_functions),
    }


def default_members() -> dict[str, str]:
    """The model that the bare name of each family stands for."""
    return {bare: member for family in registered_models for bare, member in family.default_members().items()}


def resolve(model_name: str, flag: str = "--model_name") -> str:
    """The full name of a model: a bare family name becomes the family's default member.

    Raises:
        ConfigError: no family has such a name. Where it begins like a family's, the error has that family's rule alone.
    """
    if len(model_name) > LONGEST_NAME:
        raise ConfigError(f"{flag}: {model_name[:20]!r}... is no model: it has {len(model_name):,} characters; valid: up to {LONGEST_NAME}")
    members = default_members()
    name = members.get(model_name, model_name)
    if not any(family.is_valid_model_name(name) for family in registered_models):
        meant = [family for family in registered_models if re.match(rf"({'|'.join(family.default_members())})[_(]", model_name)]
        rules = ", ".join(rule for family in meant or registered_models for rule in family.name_rules())
        raise ConfigError(f"{flag}: {model_name!r} is no model{did_you_mean(model_name, [*members, *members.values()])}; valid: {rules}")
    return name


def family_of(model_name: str) -> type[base.Model]:
    """The class of a model that `resolve` has passed."""
    return next(family for family in registered_models if family.is_valid_model_name(model_name))


def get_default_hparams(model_name: str) -> DefaultHparams:
    """The default hyperparameters of a model."""
    name = resolve(model_name, "--default_hparams")
    return family_of(name).default_hparams(name)


def check(model_hparams: ModelHparams) -> None:
    """Raises a ConfigError for the first hyperparameter that no model can be built from."""
    resolve(model_hparams.model_name)
    activation_functions.get(model_hparams.act_fun)
    for flag, module in (("model_init", initializers), ("batchnorm_init", bn_initializers)):
        if getattr(model_hparams, flag) not in functions(module):
            raise unknown(f"--{flag}", getattr(model_hparams, flag), functions(module))


def get(model_hparams: ModelHparams, outputs: int | None = None, seed: int = 0) -> base.Model:
    """Builds a model on the CPU, freshly initialised.

    Args:
        model_hparams: which model, and how its weights begin.
        outputs: units of the output layer, where the dataset decides.
        seed: the run's seed; the same seed gives the same weights.

    Raises:
        ConfigError: a hyperparameter has no such value.
    """
    check(model_hparams)
    name = resolve(model_hparams.model_name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "model initialisation"))
        model = family_of(name).get_model_from_name(name, functions(initializers)[model_hparams.model_init], outputs, model_hparams.act_fun)
        model.apply(functions(bn_initializers)[model_hparams.batchnorm_init])
    freezing.freeze(model, model_hparams)
    return model


def meta_model(model_hparams: ModelHparams, outputs: int | None = None) -> base.Model:
    """A model without memory for its weights: what tensors it has, and what it takes."""
    name = resolve(model_hparams.model_name)
    try:
        with torch.device("meta"):
            model = family_of(name).get_model_from_name(name, lambda module: None, outputs, model_hparams.act_fun)
    except RuntimeError as error:
        raise ConfigError(f"--model_name: {name} cannot be built ({reason(error)})") from None
    freezing.freeze(model, model_hparams)
    return model


def check_fits(model_hparams: ModelHparams, inputs: int, outputs: int, image_shape: tuple[int, ...] | None = None) -> None:
    """Raises a ConfigError unless the model can be built, trained, and takes the examples to as many outputs as they need.

    Args:
        model_hparams: which model.
        inputs: values an example.
        outputs: units of the output layer.
        image_shape: channels, height and width, where the examples are images.
    """
    model, name = meta_model(model_hparams, outputs), model_hparams.model_name
    freezing.check(model, model_hparams)
    if model.input_size not in (None, inputs):
        raise ConfigError(f"--model_name: {name} takes {model.input_size} inputs; the examples have {inputs}")
    if model.channels is not None and image_shape is None:
        raise ConfigError(f"--model_name: {name} takes images; the examples are rows of {inputs} values")
    if model.channels is not None and model.channels != image_shape[0]:
        raise ConfigError(f"--model_name: {name} takes images of {model.channels} channels; the examples have {image_shape[0]}")


def exists(location: str, step: Step) -> bool:
    """Whether a run folder holds the weights of a step."""
    return get_platform().exists(paths.model(location, step))


def latest_weights_file(location: str) -> str:
    """The file of a finished run's folder with the weights of the latest step.

    Raises:
        ConfigError: there is none, or only that of the untrained network.
    """
    latest = paths.latest_model(get_platform().listdir(location))
    if latest is None:
        raise ConfigError(f"{location} holds no model_ep*_it*.pth of a trained network; run its command again")
    return os.path.join(location, latest)


def load(path: str, model_hparams: ModelHparams, outputs: int | None = None) -> base.Model:
    """The model whose weights a file holds, on the CPU, in the file's number format.

    Raises:
        ConfigError: the file is damaged, or holds another model; this is seen before memory is taken for the model.
    """
    state = base.read_state(path)
    _fitting(state, meta_model(model_hparams, outputs), path)
    model = get(model_hparams, outputs)
    _fill(model, state, path)
    return model


def load_weights(path: str, model: base.Model) -> None:
    """Puts the weights of a file into a model, which takes on the file's number format.

    Raises:
        ConfigError: the file is damaged, or holds another model.
    """
    _fill(model, base.read_state(path), path)


def _fill(model: base.Model, state: dict, path: str) -> None:
    state = _fitting(state, model, path)
    model.to(next(iter(state.values())).dtype).load_state_dict(state)


def _fitting(state: dict, model: base.Model, path: str) -> dict[str, torch.Tensor]:
    """The state that a file held by a model's own keys; a ConfigError unless it has the model's tensors in their shapes."""
    try:
        state = model.convert_state_dict(state)
        shapes = {name: values.shape for name, values in state.items()}
        if shapes == {name: values.shape for name, values in model.state_dict().items()} and next(iter(state.values())).is_floating_point():
            return state
    except (RuntimeError, AttributeError, KeyError, TypeError, StopIteration):
        pass
    raise _other_weights(path)


def stored_outputs(path: str, model: base.Model) -> int:
    """Units of the output layer whose weights a file holds; `model` is one of the same name.

    Raises:
        ConfigError: the file is damaged, or holds another model.
    """
    state = base.read_state(path)
    try:
        return model.convert_state_dict(state)[model.output_layer_names[-1]].shape[-1]
    except (AttributeError, KeyError, TypeError, IndexError):
        raise _other_weights(path) from None


def _other_weights(path: str) -> ConfigError:
    """The error for a file that holds something else than was expected."""
    return ConfigError(f"{path} does not hold the weights of this model; move it away and run the same command again")
