"""What the operators share on the Python side of the dispatcher: autocast rules, and who else is at work in a call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad

NAMESPACE = "resnet_cuda"
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}

# Holds the Python kernels of the operators whose schemas the compiled library has registered.
library = torch.library.Library(NAMESPACE, "IMPL")


def autocast_dtype(input: object) -> torch.dtype | None:
    """The dtype that autocast asks for where ``input`` lives; None outside autocast and for float64."""
    if not isinstance(input, Tensor) or input.dtype == torch.float64:
        return None
    device_type = input.device.type
    if device_type not in _AUTOCAST_KEYS or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def cast(tensor: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    """``tensor`` in ``dtype`` where there is one to cast to; float64 and what is no floating tensor stays as it is."""
    if dtype is None or not isinstance(tensor, Tensor) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def register_autocast(name: str, cast_arguments: Callable) -> None:
    """Registers ``cast_arguments(dtype, *arguments) -> arguments`` in front of ``name`` on both autocast keys.

    ``torch.library.register_autocast`` casts every tensor to one fixed dtype; here offsets and the norm's constants stay
    float32 and the dtype is the one that the user gave to ``torch.autocast``.
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


def refuse_autograd(name: str, instead: str) -> None:
    """Makes ``name`` an error where a gradient is asked for: it has no derivative of its own and would lose it."""
    packet = getattr(torch.ops.resnet_cuda, name).default

    def kernel(*arguments):
        if torch.is_grad_enabled() and any(isinstance(it, Tensor) and it.requires_grad for it in arguments):
            raise RuntimeError(f"torch.ops.{NAMESPACE}.{name} has no derivative; call {instead}")
        with torch._C._AutoDispatchBelowAutograd():
            return packet(*arguments)

    library.impl(name, kernel, "Autograd")


def needs_registered_op() -> bool:
    """Whether something traces or watches: then it must see the registered, functional operator.

    That is torch.compile and torch.export, torch.jit.trace, and every dispatch mode (make_fx, fake tensors, selective
    checkpointing, counters). Otherwise an ``autograd.Function`` around the bare kernel does the same with a third of
    the Python overhead.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._len_torch_dispatch_stack() > 0
    )


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (grad, vjp, jvp, vmap, ...) or forward-mode differentiation is at work.

    The compiled operators have no rules for these. The reference is made of operations that have them all.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
