"""Which implementation of the operators runs: the compiled one or the reference in PyTorch.

The choice is a global of this module and not a context variable, so that ``torch.compile`` can guard on it. It applies
to all threads of the process; blocks of several threads may end in any order.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref

import torch

from resnet_cuda import _extension

CHOICES = ("auto", "native", "reference")
ENVIRONMENT_VARIABLE = "RESNET_CUDA_BACKEND"

_choice = "auto"
_warned: set[str] = set()
_lock = threading.Lock()


def _renew_the_lock() -> None:
    """In a forked process: the thread that may have held it is not there."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_the_lock)


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

    It applies to all threads. Of blocks of several threads that overlap the one begun last counts; when all have
    ended, what was chosen before the first of them does again.

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

    _thread: int | None = None  # until it has become a block, the thread that called

    def __init__(self, name: str):
        if torch.compiler.is_dynamo_compiling():  # it can trace neither locks nor weak references
            self._previous = _set(name, "use_backend")
            return
        with _lock:
            self._previous = _set(name, "use_backend")
            self._thread = threading.get_ident()
            _calls[:] = [it for it in _calls if it() is not None] + [weakref.ref(self)]

    def __enter__(self) -> use_backend:
        self._thread = None
        return self

    def __exit__(self, *exception: object) -> None:
        global _choice
        if torch.compiler.is_dynamo_compiling():
            _choice = self._previous
            return
        with _lock:
            later = self._taken_from_calls()
            if later is None:
                _choice = self._previous
            else:
                later._previous = self._previous

    def _taken_from_calls(self) -> use_backend | None:
        """Another thread's block that began after this one and has not ended; calls of this thread end with it."""
        calls = [it for it in (reference() for reference in _calls) if it is not None]
        if self not in calls:  # it has ended before, or began where torch.compile traced
            return None
        own, thread = calls.index(self), threading.get_ident()
        del _calls[:]
        _calls.extend(weakref.ref(it) for it in calls if it is not self)
        return next((it for it in calls[own + 1 :] if it._thread != thread), None)

    def __repr__(self) -> str:
        return f"<resnet_cuda backend: {backend()}>"


_calls: list[weakref.ref[use_backend]] = []  # in their order, of all threads: blocks, and calls whose result is kept


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
