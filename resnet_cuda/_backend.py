"""Which implementation of the operators runs: the compiled one or the reference in PyTorch.

The choice is a global of this module and not a context variable, so that ``torch.compile`` can guard on it. It applies
to all threads of the process.
"""

from __future__ import annotations

import os
import warnings

import torch

from resnet_cuda import _extension

CHOICES = ("auto", "native", "reference")
ENVIRONMENT_VARIABLE = "RESNET_CUDA_BACKEND"

_choice = "auto"
_warned: set[str] = set()


def backend() -> str:
    """The implementation in use for CPU tensors (and CUDA tensors where its library is loaded).

    Returns:
        ``"native"`` (the compiled operators) or ``"reference"`` (pure PyTorch).
    """
    if _choice == "reference" or not _extension.CPU_LOADED:
        return "reference"
    return "native"


def _set(name: str, origin: str) -> str:
    """Makes ``name`` the choice and returns the one before it."""
    global _choice
    if name not in CHOICES:
        allowed = ", ".join(repr(choice) for choice in CHOICES)
        raise ValueError(f"{origin}: name is {name!r}; allowed are {allowed}")
    if name == "native" and not _extension.CPU_LOADED:
        raise RuntimeError(
            f"{origin}: 'native' was asked for, but the compiled extension is not loaded: {_extension.CPU_ERROR}"
        )
    previous, _choice = _choice, name
    return previous


class use_backend:  # noqa: N801 - reads as a function, as torch.no_grad and torch.set_grad_enabled do
    """Chooses the implementation of the operators, from now on or, as a context manager, until the block ends.

    Args:
        name: ``"native"`` (the compiled operators; an error where they are missing), ``"reference"`` (pure PyTorch)
            or ``"auto"`` (native where it supports the tensor's device, else the reference with one warning).

    Raises:
        ValueError: for another name.
        RuntimeError: for ``"native"`` where the compiled extension is not loaded.

    >>> use_backend("reference")  # doctest: +SKIP
    >>> with use_backend("native"):  # doctest: +SKIP
    ...     y = model(x)
    """

    def __init__(self, name: str):
        self._previous = _set(name, "use_backend")

    def __enter__(self) -> use_backend:
        return self

    def __exit__(self, *exception: object) -> None:
        global _choice
        _choice = self._previous

    def __repr__(self) -> str:
        return f"<resnet_cuda backend: {backend()}>"


def use_native_for(tensor: torch.Tensor) -> bool:
    """Whether the compiled operator runs for tensors on ``tensor``'s device under the current choice.

    Raises:
        RuntimeError: if ``"native"`` was chosen and there is no compiled kernel for the device.
    """
    if _choice == "reference" or not _extension.CPU_LOADED:
        return False
    # The common cases, without the cost of a torch.device object.
    if tensor.is_cpu or (tensor.is_cuda and _extension.CUDA_LOADED):
        return True
    device = tensor.device
    if device.type == "meta":
        return True
    reason = _extension.CUDA_ERROR if device.type == "cuda" else "this device has only the reference"
    if _choice == "native":
        raise RuntimeError(f"use_backend('native'): no compiled operators for {device.type} tensors: {reason}")
    if device.type not in _warned:
        _warned.add(device.type)
        warnings.warn(
            f"resnet_cuda: {device.type} tensors run on the PyTorch reference, which is slow: {reason}", stacklevel=3
        )
    return False


def _read_environment() -> None:
    name = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if name:
        _set(name, f"environment variable {ENVIRONMENT_VARIABLE}")


_read_environment()
