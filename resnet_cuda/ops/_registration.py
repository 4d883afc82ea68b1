"""Helpers of all operators on the Python side of the dispatcher: autocast, tracing, functorch transforms."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx import Proxy

from resnet_cuda.ops._out_of_memory import raise_if_out_of_memory

NAMESPACE = "resnet_cuda"
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}

_KEYS = torch._C.DispatchKey
_WRAPPERS = functools.reduce(
    operator.or_,
    map(
        torch._C.DispatchKeySet,
        # The first three are those of _AutoDispatchBelowAutograd.
        (
            _KEYS.AutogradFunctionality,
            _KEYS.AutogradOther,
            _KEYS.AutogradNestedTensor,
            _KEYS.AutocastCPU,
            _KEYS.AutocastCUDA,
        ),
    ),
)


class _Library(torch.library.Library):
    """Whose kernels take the place of an earlier import's, which code has dropped from ``sys.modules``.

    In torch 2.10 that is an error by default, and ``register_autograd`` has no option for it.
    """

    def impl(self, *arguments: Any, **options: Any) -> None:
        super().impl(*arguments, **options | {"allow_override": True})


# Python kernels for the operators whose schemas the compiled library registers.
library = _Library(NAMESPACE, "IMPL")


def autocast_dtype(input: object) -> torch.dtype | None:
    """The dtype that autocast asks for where ``input`` lives; None outside autocast, for float64 and for what is not
    floating point: torch casts neither."""
    if not isinstance(input, Tensor) or input.dtype == torch.float64 or not input.is_floating_point():
        return None
    # Not device.type, which takes three times as long.
    device_type = "cuda" if input.is_cuda else "cpu" if input.is_cpu else None
    if device_type is None or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def cast(tensor: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    """``tensor`` in ``dtype``. Unchanged where dtype is None, and where tensor is None, float64 or not floating."""
    if dtype is None or not isinstance(tensor, Tensor) or tensor.dtype in (torch.float64, dtype):
        return tensor
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def register_autocast(name: str, cast_arguments: Callable) -> None:
    """Registers ``cast_arguments(dtype, *arguments) -> arguments`` as the autocast rule of ``name``, CPU and CUDA.

    ``torch.library.register_autocast`` would cast every tensor to one fixed dtype. Here offsets and the norm's
    constants stay float32, and dtype is the one given to ``torch.autocast``.
    """
    packet = getattr(torch.ops.resnet_cuda, name).default
    for device_type, key in _AUTOCAST_KEYS.items():
        excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

        def kernel(*arguments, device_type=device_type, excluded=excluded):
            # By the time a kernel of an autocast key runs, is_autocast_enabled() already says no.
            dtype = None if arguments[0].dtype == torch.float64 else torch.get_autocast_dtype(device_type)
            with torch._C._ExcludeDispatchKeyGuard(excluded):
                return packet(*cast_arguments(dtype, *arguments))

        library.impl(name, kernel, key)


def register_fake(name: str, fake: Callable) -> None:
    """How ``name`` computes its results' shapes; likewise in place of an earlier import's function."""
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, allow_override=True)


def register_autograd(name: str, backward: Callable, setup_context: Callable) -> None:
    """``torch.library.register_autograd`` for an operator of this package."""
    torch.library.register_autograd(f"{NAMESPACE}::{name}", backward, setup_context=setup_context, lib=library)


def refuse_autograd(name: str, instead: str) -> None:
    """Makes ``name`` raise where an argument requires a gradient: it has no derivative, the gradient would be lost."""
    packet = getattr(torch.ops.resnet_cuda, name).default

    def kernel(*arguments):
        if needs_gradient(*(it for it in arguments if isinstance(it, Tensor))):
            raise RuntimeError(f"torch.ops.{NAMESPACE}.{name} has no derivative; call {instead}")
        with torch._C._AutoDispatchBelowAutograd():
            return packet(*arguments)

    library.impl(name, kernel, "Autograd")


def below_wrappers() -> torch._C._ExcludeDispatchKeyGuard:
    """A context in which an operator's compiled kernel is called directly, without its Python kernels for autograd and
    autocast.

    For eager calls that record no graph and whose arguments are cast already. Autograd's kernel would only pass the
    call on: 4 us where ``relu`` takes 2. Autocast's would cast again: 8 us or more.
    """
    return torch._C._ExcludeDispatchKeyGuard(_WRAPPERS)


def call_without_graph(function: Callable, *arguments):
    """``function(*arguments)``, of operators, where no graph is recorded, see :func:`below_wrappers`."""
    try:
        with below_wrappers():
            return function(*arguments)
    except RuntimeError as error:
        raise_if_out_of_memory(error)
        raise


def call_in_backward(overload: torch._ops.OpOverload, *arguments):
    """``overload(*arguments)`` inside a backward, which records a graph only for ``create_graph=True``.

    A tracer, such as compiled autograd's, must see the registered operator and no guard.
    """
    if torch.is_grad_enabled() or needs_registered_op():
        return overload(*arguments)
    return call_without_graph(overload, *arguments)


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd is to record a call with these arguments."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def needs_registered_op() -> bool:
    """Whether a tracer or a dispatch mode is active, which must see the registered, functional operator.

    True under torch.compile, torch.export, torch.jit.trace and every dispatch mode (make_fx, fake tensors, selective
    checkpointing, FLOP counters). Eager calls use an ``autograd.Function`` instead, which costs less Python.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )


def exporting_to_onnx() -> bool:
    """Whether ``torch.onnx.export`` is tracing this call, by either of its exporters.

    torch's flag is the process's: it is also set for other threads, whose calls need values and not nodes of a graph.
    """
    onnx = sys.modules.get("torch.onnx")  # a tenth of a second to import
    return (
        onnx is not None
        and not torch.compiler.is_dynamo_compiling()
        and onnx.is_in_onnx_export()
        # These are the thread's: torch.jit.trace's state, and the dispatch mode by which torch.export fakes tensors.
        and (torch._C._get_tracing_state() is not None or _in_fake_mode())
    )


def _in_fake_mode() -> bool:
    stack = map(torch._C._get_dispatch_stack_at, range(torch._C._len_torch_dispatch_stack()))
    return any(isinstance(mode, FakeTensorMode) for mode in stack)


def record(function: Callable, *arguments: object) -> Any:
    """A call of ``function`` in the graph that torch.fx is tracing; one of ``arguments`` is a proxy.

    Parameters and buffers among them become references to the module's own.
    """
    tracer = next(it for it in arguments if isinstance(it, Proxy)).tracer
    return tracer.create_proxy("call_function", function, arguments, {})


def is_distributed(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a DTensor, for which the compiled operators have no rule: no sharding strategy."""
    if type(tensor) is Tensor or torch.compiler.is_compiling():
        return False
    module = sys.modules.get("torch.distributed.tensor")  # a second to import
    return module is not None and isinstance(tensor, module.DTensor)


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (grad, vjp, jvp, vmap, ...) or forward-mode differentiation is active.

    The compiled operators have no rules for these; the reference is made of torch operators, which do.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
