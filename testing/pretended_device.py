"""A device that is not there: its tensors lie on the CPU, and refuse to mix with the CPU as those of a GPU do.

A tensor on it is a `PretendedTensor`, a wrapper around the CPU tensor that holds its values. Every operation on such tensors checks where
its arguments are, computes on the CPU, and wraps the result, so that results are the same bits as on the CPU. Factory functions with
`device="pretended"` make such tensors. The device has the dispatch key that torch reserves for external devices (`PrivateUse1`), so that
autograd, torch.func, autocast, and fused optimizers treat it as a real one.

The module registers the device when it is imported, for the rest of the process: torch counts devices in the first backward pass, and knows
no others after that.

It differs from a GPU in two ways. Random numbers come from the CPU's default generator when no generator is given. A file that is loaded
without `map_location` gives CPU tensors.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from torch.utils import backend_registration

from platforms import local
from platforms import registry as platforms

NAME = "pretended"
FACTORIES = ("arange", "arange.start", "arange.start_step", "eye", "eye.m", "linspace", "randperm", "randperm.generator")
DIRECT = (*FACTORIES, "copy_")  # torch calls these without the fallback, `copy_` within `torch.tensor`
SIXTEEN_BITS = ("addmm", "baddbmm", "bmm", "conv2d", "linear", "matmul", "mm")  # operations that autocast computes in 16 bits
INDEXED = ("index", "index_put", "_index_put_impl")  # operations on a tensor and a list of indices, which may be on the CPU
NUMBERS = ("fill", "index_put", "_index_put_impl", "masked_fill")  # operations besides the pointwise ones that take a number on the CPU
READERS = ("_local_scalar_dense", "equal", "masked_select", "nonzero")  # operations that read a value, or count values

_libraries: list[torch.library.Library] = []  # torch forgets their kernels when they are deleted
_records: list[list[str]] = []  # of waits, one for each `recorded_waits` that is active


def missing() -> str | None:
    """Why there can be no pretended device in this process; None where there can."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"torch {torch.__version__} has no devices that are written in Python"
    return "a GPU is here, and torch prefers an external device to it once one is registered" if torch.cuda.is_available() else None


@dataclass
class Platform(local.Platform):
    """The local machine with the pretended device as its GPU."""

    @property
    def torch_device(self) -> torch.device:
        return torch.device(NAME)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Has commands run on the pretended device."""
    patches = mock.patch.dict(platforms.registered_platforms, local=Platform), mock.patch.object(torch.nn.Module, "_apply", _apply)
    with patches[0], patches[1]:
        yield


@contextlib.contextmanager
def recorded_waits() -> Iterator[list[str]]:
    """Records the operations at which a GPU would make the CPU wait: those that read a value, and copies from and to ordinary memory."""
    record: list[str] = []
    _records.append(record)
    try:
        yield record
    finally:
        _records.remove(record)


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
    _check(operation, args, kwargs)
    if _records and _waits(operation, args, kwargs):
        for record in _records:
            record.append(str(operation))
    known: dict[int, torch.Tensor] = {}  # the arguments, by their tensors on the CPU

    def on_cpu(value: object) -> object:
        if isinstance(value, torch.Tensor):
            values = value.values if isinstance(value, PretendedTensor) else value
            known[id(values)] = value
            return values
        return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value

    result = operation(*_mapped(on_cpu, args), **{name: _mapped(on_cpu, value) for name, value in kwargs.items()})
    if operation is torch.ops.aten.linalg_lstsq.default and bool((result[2] < min(args[0].shape[-2:])).any()):
        raise RuntimeError("torch.linalg.lstsq needs a matrix of full rank on a GPU, where its only driver is gels")
    if kwargs.get("device") is not None and kwargs["device"].type != NAME:
        return result
    return _mapped(lambda value: _wrapped(value, known) if isinstance(value, torch.Tensor) else value, result)


def _mapped(change: Callable[[object], object], value: object) -> object:
    """An argument or a result with a change to every value in it."""
    return type(value)([_mapped(change, part) for part in value]) if isinstance(value, (list, tuple)) else change(value)


def _wrapped(values: torch.Tensor, known: dict[int, torch.Tensor]) -> torch.Tensor:
    """The tensor for some values: the argument that holds them already, if there is one."""
    tensor = known.get(id(values))
    if tensor is None:
        return PretendedTensor(values)
    if tensor.shape != values.shape or tensor.stride() != values.stride():
        raise NotImplementedError("the pretended device has no operation that gives a tensor another shape in place")
    return tensor


def _check(operation: torch._ops.OpOverload, args: tuple, kwargs: dict) -> None:
    """Raises the RuntimeError of CUDA where an argument is on the CPU that has to be on the device, or the reverse."""
    name, takes_numbers, written = _rules(operation)
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != NAME:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{generator.device.type}'")
    if name in ("copy", "_to_copy"):
        return
    if name in INDEXED:
        if not isinstance(args[0], PretendedTensor):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        args = (args[0], None, *args[2:])

    def check(value: object, is_written: bool) -> None:
        if isinstance(value, (list, tuple)):
            for part in value:
                check(part, is_written)
        elif isinstance(value, torch.Tensor) and value.device.type != NAME and (value.dim() or is_written or not takes_numbers):
            found = f"found at least two devices, {NAME}:0 and {value.device}!"
            raise RuntimeError(f"Expected all tensors to be on the same device, but {found} (in {operation})")

    for place, value in [*enumerate(args), *kwargs.items()]:
        check(value, place in written)


def _waits(operation: torch._ops.OpOverload, args: tuple, kwargs: dict) -> bool:
    """Whether a GPU would make the CPU wait for the result, or for an argument."""
    name, _, _ = _rules(operation)
    if name == "copy":
        return any(value.device.type != NAME for value in args[:2])
    if name == "_to_copy":
        return kwargs.get("device") is not None and kwargs["device"].type != NAME
    if name in INDEXED:
        return any(index is not None and (index.dtype == torch.bool or index.device.type != NAME) for index in args[1])
    return name in READERS


@functools.cache
def _rules(operation: torch._ops.OpOverload) -> tuple[str, bool, set[int | str]]:
    """The name of an operation, whether it takes numbers on the CPU, and which arguments, by place and by name, it writes to."""
    name, arguments = operation.overloadpacket.__name__.removesuffix("_"), operation._schema.arguments
    takes_numbers = torch.Tag.pointwise in operation.tags or name in NUMBERS or name.startswith("_foreach")
    written = [(place, argument.name) for place, argument in enumerate(arguments) if argument.alias_info and argument.alias_info.is_write]
    return name, takes_numbers, {key for pair in written for key in pair}


def _compute_in_sixteen_bits(operation: torch._ops.OpOverload, *args, **kwargs):
    """Computes an operation in the number format of the autocast context around it."""
    dtype = torch.get_autocast_dtype(NAME)

    def narrow(value: object) -> object:
        is_narrowed = isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(dtype) if is_narrowed else value

    with torch.autocast(NAME, enabled=False):
        return operation(*_mapped(narrow, args), **kwargs)


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


def _register() -> None:
    """Makes torch know the pretended device."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    everything, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(_compute, "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in DIRECT:
        aten.impl(name, functools.partial(_compute, _operation(name)), "PrivateUse1")
    aten.impl("_efficientzerotensor", functools.partial(_compute, torch.ops.aten.zeros.default), "PrivateUse1")
    for name in SIXTEEN_BITS:
        aten.impl(name, functools.partial(_compute_in_sixteen_bits, _operation(name)), "AutocastPrivateUse1")
    _libraries.extend((everything, aten))


if missing() is None:
    _register()
