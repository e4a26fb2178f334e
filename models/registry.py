"""The table of all model families. Builds models from their names and loads them from files."""

from __future__ import annotations

import inspect
import os
import re
import types

import torch

from foundations import ancestors, paths
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
MAX_NAME_LENGTH = 1000  # characters
LARGEST_NUMBER = 10**12  # of neurons, students or layers
WEIGHT_BYTES = 4  # in the smallest number format in which weights are stored
GIGABYTE = 10**9


def initializers_in(module: types.ModuleType) -> dict[str, base.Initializer]:
    """The initialisers that a module defines, by name."""
    return dict(inspect.getmembers(module, lambda value: inspect.isfunction(value) and value.__module__ == module.__name__))


def choices() -> dict[str, list[str]]:
    """The valid values of those fields of ModelHparams that have a fixed list of values, for help texts."""
    return {
        "model_name": [rule for family in registered_models for rule in family.name_rules()],
        "model_init": list(initializers_in(initializers)),
        "batchnorm_init": list(initializers_in(bn_initializers)),
        "act_fun": list(activation_functions.activation_functions),
    }


def default_members() -> dict[str, str]:
    """For each bare family name, the full name of its default model."""
    return {bare: member for family in registered_models for bare, member in family.default_members().items()}


def resolve(model_name: str, flag: str = "--model_name") -> str:
    """The full name of a model: a bare family name is replaced by the name of the default model of this family.

    Raises:
        ConfigError: the name is not valid. If it begins with the name of a family, the error shows the patterns of this family only.
    """
    if len(model_name) > MAX_NAME_LENGTH:
        size = f"it has {len(model_name):,} characters; valid: up to {MAX_NAME_LENGTH}"
        raise ConfigError(f"{flag}: {model_name[:20]!r}... is not a model: {size}")
    if any(int(number) > LARGEST_NUMBER for number in re.findall(r"\d+", model_name)):
        valid = f"numbers up to {LARGEST_NUMBER:,}, because weights must be in memory"
        raise ConfigError(f"{flag}: {model_name:.80} is too large; valid: {valid}")
    members = default_members()
    name = members.get(model_name, model_name)
    if not any(family.is_valid_model_name(name) for family in registered_models):
        similar = [family for family in registered_models if re.match(rf"({'|'.join(family.default_members())})[_(]", model_name)]
        rules = ", ".join(rule for family in similar or registered_models for rule in family.name_rules())
        raise ConfigError(f"{flag}: {model_name!r} is not a model{did_you_mean(model_name, [*members, *members.values()])}; valid: {rules}")
    return name


def family_of(model_name: str) -> type[base.Model]:
    """The class of the model with a name that `resolve` has returned."""
    return next(family for family in registered_models if family.is_valid_model_name(model_name))


def get_default_hparams(model_name: str) -> DefaultHparams:
    """The default hyperparameters of a model."""
    name = resolve(model_name, "--default_hparams")
    return family_of(name).default_hparams(name)


def check(model_hparams: ModelHparams) -> None:
    """Raises a ConfigError for the first hyperparameter with an invalid value."""
    resolve(model_hparams.model_name)
    activation_functions.get(model_hparams.act_fun)
    for flag, module in (("model_init", initializers), ("batchnorm_init", bn_initializers)):
        if getattr(model_hparams, flag) not in initializers_in(module):
            raise unknown(f"--{flag}", getattr(model_hparams, flag), initializers_in(module))


def get(model_hparams: ModelHparams, outputs: int | None = None, seed: int = 0) -> base.Model:
    """Builds a model on the CPU and initialises its weights.

    Args:
        model_hparams: the name of the model and its initialisers.
        outputs: units of the output layer; the default of the model if None.
        seed: the seed of the run; the same seed gives the same weights.

    Raises:
        ConfigError: a hyperparameter has an invalid value.
    """
    check(model_hparams)
    name = resolve(model_hparams.model_name)
    initializer = initializers_in(initializers)[model_hparams.model_init]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "model initialisation"))
        model = family_of(name).get_model_from_name(name, initializer, outputs, model_hparams.act_fun)
        model.apply(initializers_in(bn_initializers)[model_hparams.batchnorm_init])
    freezing.freeze(model, model_hparams)
    return model


def meta_model(model_hparams: ModelHparams, outputs: int | None = None) -> base.Model:
    """A model on the meta device: its tensors have names and shapes, but no memory."""
    name = resolve(model_hparams.model_name)
    try:
        with torch.device("meta"):
            model = family_of(name).get_model_from_name(name, lambda module: None, outputs, model_hparams.act_fun)
    except RuntimeError as error:
        raise ConfigError(f"--model_name: {name} cannot be built ({reason(error)})") from None
    freezing.freeze(model, model_hparams)
    return model


def check_fits(model_hparams: ModelHparams, inputs: int, outputs: int, image_shape: tuple[int, ...] | None = None) -> None:
    """Raises a ConfigError unless the model can be built and trained, accepts the examples and has the right number of outputs.

    Args:
        model_hparams: the hyperparameters of the model.
        inputs: values of an example.
        outputs: units that the output layer must have.
        image_shape: channels, height and width of an image; None if the examples are not images.
    """
    model, name = meta_model(model_hparams, outputs), model_hparams.model_name
    _check_memory(model, name)
    freezing.check(model, model_hparams)
    if model.input_size not in (None, inputs):
        raise ConfigError(f"--model_name: {name} takes {model.input_size} inputs; the examples have {inputs}")
    if model.channels is None:
        return
    if image_shape is None:
        raise ConfigError(f"--model_name: {name} takes images; the examples are rows of {inputs} values")
    if model.channels != image_shape[0]:
        raise ConfigError(f"--model_name: {name} takes images of {model.channels} channels; the examples have {image_shape[0]}")


def _check_memory(model: base.Model, name: str) -> None:
    """Raises a ConfigError if the weights of a model and their gradients cannot be in memory."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    needed = WEIGHT_BYTES * (weights + sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad))
    memory = get_platform().memory_bytes
    if needed > memory:
        sizes = f"{weights:,} weights, which need {needed / GIGABYTE:,.0f} GB with their gradients"
        raise ConfigError(f"--model_name: {name:.80} has {sizes}; valid: up to the {memory / GIGABYTE:,.0f} GB of memory")


def exists(location: str, step: Step) -> bool:
    """Whether a run folder has a file with the weights of a step."""
    return get_platform().exists(paths.model(location, step))


def latest_weights_file(location: str) -> str:
    """The path of the file with the weights of the latest step in the folder of a finished run.

    Raises:
        ConfigError: the folder has no weights, or only those of the untrained network.
    """
    latest = paths.latest_model(get_platform().listdir(location))
    if latest is None:
        raise ConfigError(f"{location} contains no model_ep*_it*.pth of a trained network; run its command again")
    return os.path.join(location, latest)


def load(path: str, model_hparams: ModelHparams, outputs: int | None = None) -> base.Model:
    """Builds a model on the CPU and loads its weights from a file, in the number format of the file.

    Raises:
        ConfigError: the file is damaged or contains the weights of another model; checked before memory is allocated for the model.
    """
    state = base.read_state(path)
    _checked_state(state, meta_model(model_hparams, outputs), path)
    model = get(model_hparams, outputs)
    _load_state(model, state, path)
    return model


def load_weights(path: str, model: base.Model) -> None:
    """Loads the weights in a file into a model and converts the model to the number format of the file.

    Raises:
        ConfigError: the file is damaged or contains the weights of another model.
    """
    _load_state(model, base.read_state(path), path)


def _load_state(model: base.Model, state: dict, path: str) -> None:
    state = _checked_state(state, model, path)
    model.to(next(iter(state.values())).dtype).load_state_dict(state)


def _checked_state(state: dict, model: base.Model, path: str) -> dict[str, torch.Tensor]:
    """The state in a file, converted to the keys of a model; a ConfigError unless names and shapes of the tensors match the model."""
    try:
        state = model.convert_state_dict(state)
        shapes = {name: values.shape for name, values in state.items()}
        if shapes == {name: values.shape for name, values in model.state_dict().items()} and next(iter(state.values())).is_floating_point():
            return state
    except (RuntimeError, AttributeError, KeyError, TypeError, StopIteration):
        pass
    raise _mismatch(path)


def stored_outputs(path: str, model: base.Model) -> int:
    """The number of outputs of the network whose weights are in a file; `model` has the same name but may have other outputs.

    Raises:
        ConfigError: the file is damaged or contains the weights of another model.
    """
    state = base.read_state(path)
    try:
        return model.convert_state_dict(state)[model.output_layer_names[-1]].shape[-1]
    except (AttributeError, KeyError, TypeError, IndexError):
        raise _mismatch(path) from None


def _mismatch(path: str) -> ConfigError:
    """The error for a file that does not match the model."""
    program = ancestors.program_of(path)
    remedy = f"{program} has written it" if program else "move it away and run the same command again"
    return ConfigError(f"{path} does not contain the weights of this model; {remedy}")
