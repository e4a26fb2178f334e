"""A recovered network for use without this program: as layers of plain torch, as a file, and as the lines of Python that rebuild it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from models import activation_functions, slopes
from models.mlp import FullyConnected


class G(nn.Module):
    """The activation function g as a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return activation_functions.g(x)


MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(slopes.LEAKY_SLOPE),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "g": G,
    "identity": nn.Identity,
}


def module(act_fun: str) -> nn.Module:
    """An activation function as a layer."""
    slope = slopes.slope_of(act_fun)
    return MODULES[act_fun]() if slope is None or act_fun in MODULES else nn.LeakyReLU(slope)


G_LINES = [
    "class G(nn.Module):",
    "    def forward(self, x):",
    "        return torch.sigmoid(4 * x) + nn.functional.softplus(x)",
]
EXAMPLES = 3  # in the batch that the program is traced with; any number of examples can be given to it


def sequential(layers: Sequence[torch.Tensor], act_fun: str) -> nn.Sequential:
    """A network as layers of plain torch, with copies of its weights; it maps `[n, inputs]` to `[n, outputs]`.

    Args:
        layers: incoming weights with the bias last, `[width, fan_in + 1]` each, the output layer last.
        act_fun: the activation function of the hidden layers.
    """
    modules: list[nn.Module] = []
    for vectors in layers:
        layer = nn.Linear(vectors.shape[1] - 1, vectors.shape[0]).to(vectors)
        with torch.no_grad():
            layer.weight.copy_(vectors[:, :-1])
            layer.bias.copy_(vectors[:, -1])
        modules += [layer, module(act_fun)]
    return nn.Sequential(*modules[:-1])


class WithLinearTerm(nn.Module):
    """A network plus a linear map of its inputs, `[outputs, inputs]`."""

    linear: torch.Tensor

    def __init__(self, network: nn.Module, linear: torch.Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("linear", linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) + x @ self.linear.T


def program(network: FullyConnected, linear: torch.Tensor | None = None) -> bytes:
    """The network as an exported program (`torch.export`), which takes any number of examples, `[n, inputs]`, on the CPU.

    Args:
        network: the network.
        linear: a linear map of the inputs that is added to its outputs, `[outputs, inputs]`.
    """
    plain: nn.Module = sequential(network.layer_vectors(), network.act_fun)
    plain = (plain if linear is None else WithLinearTerm(plain, linear)).cpu()
    example = network.fc.weight.data.new_zeros(EXAMPLES, network.sizes[0], device="cpu")
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own modules
        exported = torch.export.export(plain, (example,), dynamic_shapes=({0: torch.export.Dim("n")},))
        torch.export.save(exported, stream)
    return stream.getvalue()


def lines(sizes: list[int], act_fun: str, weights: str, linear: str | None = None) -> list[str]:
    """The lines of Python that rebuild a network with nothing but torch.

    Args:
        sizes: the number of inputs, then the width of each layer.
        act_fun: the activation function of the hidden layers.
        weights: the path of the file with the weights.
        linear: the path of the file with a linear map of the inputs that is added to the outputs; None where there is none.
    """
    term = ["import numpy", f"A = torch.from_numpy(numpy.load({linear!r}))", "outputs = lambda X: network(X) + X @ A.T"] if linear else []
    activation = ("" if act_fun == "g" else "nn.") + repr(module(act_fun))
    layers = [f"nn.Linear({fan_in}, {width})" for fan_in, width in zip(sizes[:-1], sizes[1:], strict=True)]
    return [
        "import torch",
        "from torch import nn",
        "",
        *([*G_LINES, ""] if act_fun == "g" else []),
        f"network = nn.Sequential({f', {activation}, '.join(layers)}).double()",
        f"weights = torch.load({weights!r}, weights_only=True)",
        "network.load_state_dict(dict(zip(network.state_dict(), weights.values())))",
        *term,
    ]
