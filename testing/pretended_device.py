"""A device that is not there: its tensors lie on the CPU, and refuse to mix with the CPU as those of a GPU do.

A tensor on it is a `PretendedTensor`, a wrapper around the CPU tensor that holds its values. Every operation on such tensors checks where
its arguments are, computes on the CPU, and wraps the result, so that results are the same bits as on the CPU. Factory functions with
`device="pretended"` make such tensors. The device has the dispatch key that torch reserves for external devices (`PrivateUse1`), so that
autograd, torch.func, autocast, and fused optimizers treat it as a real one.

It differs from a GPU in two ways. Random numbers come from the CPU's default generator when no generator is given. A file that is loaded
without `map_location` gives CPU tensors.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

from platforms import local
from platforms import registry as platforms

NAME = "pretended"
FACTORIES = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm", "randperm.generator")
DIRECT = (*FACTORIES, "copy_")  # torch calls these without the fallback, `copy_` within `torch.tensor`
SIXTEEN_BITS = ("addmm", "baddbmm", "bmm", "conv2d", "linear", "matmul", "mm")  # operations that autocast computes in 16 bits
INDEXED = ("index", "index_put", "_index_put_impl")  # operations on a tensor and a list of indices, which may be on the CPU
NUMBERS = ("fill", "index_put", "_index_put_impl", "masked_fill")  # operations besides the pointwise ones that take a number on the CPU

_libraries: list[torch.library.Library] = []  # torch forgets their kernels when they are deleted


def missing() -> str | None:
    """Why there can be no pretended device in this process; None where there can."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"torch {torch.__version__} has no devices that are written in Python"
    return "a GPU is here, and torch prefers an external device to it once one is registered" if torch.cuda.is_available() else None


def device() -> torch.device:
    """The pretended device; the first call registers it with torch for the rest of the process."""
    if not _libraries:
        backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
        everything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
        everything.fallback(_compute, "PrivateUse1")
        everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
        for name in DIRECT:
            aten.impl(name, functools.partial(_compute, _operation(name)), "PrivateUse1")
        for name in SIXTEEN_BITS:
            aten.impl(name, functools.partial(_compute_in_sixteen_bits, _operation(name)), "AutocastPrivateUse1")
        _libraries.extend((everything, aten))
    return torch.device(NAME)


@dataclass
class Platform(local.Platform):
    """The local machine with the pretended device as its GPU."""

    @property
    def torch_device(self) -> torch.device:
        return device()


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Has commands run on the pretended device."""
    patches = mock.patch.dict(platforms.registered_platforms, local=Platform), mock.patch.object(torch.nn.Module, "_apply", _apply)
    with patches[0], patches[1]:
        yield


class PretendedTensor(torch.Tensor):
    """A tensor on the pretended device; `values` is the CPU tensor that holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor):
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, values.shape, device=torch.device(NAME, 0), **layout)
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _compute(operation, *args, **(kwargs or {}))

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, other)
        self.values = other.values

    def numpy(self, *, force: bool = False):
        if force:
            return self.detach().cpu().numpy()
        advice = "Use Tensor.cpu() to copy the tensor to host memory first."
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. {advice}")

    def __array__(self, *args, **options):
        return self.numpy()

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict):
        if id(self) not in memo:
            copied = PretendedTensor(self.values.clone())
            memo[id(self)] = torch.nn.Parameter(copied) if isinstance(self, torch.nn.Parameter) else copied
            memo[id(self)].requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return self.values.__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents=None):
        return f"PretendedTensor({self.values!r})"


class _Module(backend_registration._DummyBackendModule):
    """Stands in torch for the pretended device as `torch.cuda` does for GPUs."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _operation(name: str) -> torch._ops.OpOverload:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _compute(operation: torch._ops.OpOverload, *args, **kwargs):
    """Computes an operation that has an argument on the pretended device, or whose result is to be there."""
    flat, structure = pytree.tree_flatten((args, kwargs))
    _check(operation, args, kwargs, flat)
    known = {id(_on_cpu(value)): value for value in flat if isinstance(value, torch.Tensor)}
    cpu_args, cpu_kwargs = pytree.tree_unflatten([_on_cpu(value) for value in flat], structure)
    result = operation(*cpu_args, **cpu_kwargs)
    if kwargs.get("device") is not None and kwargs["device"].type != NAME:
        return result
    return pytree.tree_map_only(torch.Tensor, lambda values: _wrapped(values, known), result)


def _on_cpu(value: object) -> object:
    if isinstance(value, PretendedTensor):
        return value.values
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value


def _wrapped(values: torch.Tensor, known: dict[int, torch.Tensor]) -> torch.Tensor:
    """The tensor for some values: the argument that holds them already, if there is one."""
    tensor = known.get(id(values))
    if tensor is None:
        return PretendedTensor(values)
    if (tensor.shape, tensor.stride()) != (values.shape, values.stride()):
        raise NotImplementedError("the pretended device has no operation that gives a tensor another shape in place")
    return tensor


def _check(operation: torch._ops.OpOverload, args: tuple, kwargs: dict, flat: list) -> None:
    """Raises the RuntimeError of CUDA where an argument is on the CPU that has to be on the device, or the reverse."""
    name = operation.overloadpacket.__name__.removesuffix("_")
    for value in flat:
        if isinstance(value, torch.Generator) and value.device.type != NAME:
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{value.device.type}'")
    if name in ("copy", "_to_copy"):
        return
    if name in INDEXED:
        if not isinstance(args[0], PretendedTensor):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        flat = [args[0], *args[2:3]]
    takes_numbers = torch.Tag.pointwise in operation.tags or name in NUMBERS or name.startswith("_foreach")
    written = _written(operation, args, kwargs)
    for value in flat:
        if isinstance(value, torch.Tensor) and not isinstance(value, PretendedTensor):
            if value.dim() or not takes_numbers or any(value is target for target in written):
                found = f"found at least two devices, {NAME}:0 and {value.device}!"
                raise RuntimeError(f"Expected all tensors to be on the same device, but {found} (in {operation})")


def _written(operation: torch._ops.OpOverload, args: tuple, kwargs: dict) -> list:
    """The arguments that an operation writes to."""
    arguments = operation._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
    names = [argument.name for argument in arguments if argument.alias_info is not None and argument.alias_info.is_write]
    return pytree.tree_leaves([given.get(name) for name in names])


def _compute_in_sixteen_bits(operation: torch._ops.OpOverload, *args, **kwargs):
    """Computes an operation in the number format of the autocast context around it."""
    dtype = torch.get_autocast_dtype(NAME)
    with torch.autocast(NAME, enabled=False):
        narrow = lambda value: value.to(dtype) if value.dtype in (torch.float32, torch.bfloat16, torch.float16) else value  # noqa: E731
        return operation(*pytree.tree_map_only(torch.Tensor, narrow, args), **kwargs)


_torch_apply = torch.nn.Module._apply


def _apply(self: torch.nn.Module, change, recurse: bool = True) -> torch.nn.Module:
    """`Module._apply`, which makes new parameters for an external device, but the same ones for CUDA, with their hooks."""
    before = dict(self._parameters)
    _torch_apply(self, change, recurse)
    for name, parameter in before.items():
        if parameter is not None and self._parameters[name] is not parameter:
            torch.utils.swap_tensors(parameter, self._parameters[name])
            parameter._backward_hooks = parameter._backward_hooks  # registers them for the tensor that the parameter is now
            self._parameters[name] = parameter
    return self
