"""Checks whether a module computes exactly what a known class computes, without importing that class's library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeGuard

from torch import nn
from torch.nn.utils import parametrize

from resnet_cuda.layers.hooks import has_own_hooks
from resnet_cuda.patched import first_patched

CALLING = ("__call__", "_call_impl")  # what torch's Module runs around a forward
IN_ORDER = ("forward", "__iter__")  # of Sequential
_RUN = (*CALLING, *IN_ORDER, "_conv_forward")
_MISSING = object()  # no class has it


def peer_class(path: str) -> type | None:
    """The class at a dotted path, or None.

    None if its module has not been imported, so that no model can contain it, or if another class has its name there.
    """
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    known = isinstance(found, type) and (found.__module__, found.__name__) == (module, name)
    return found if known else None


def runs_as(module: nn.Module, known: type, methods: Sequence[str] = ("forward",)) -> bool:
    """Whether calling ``module`` runs the ``methods`` of the class ``known`` as its library wrote them.

    True for a subclass that overrides none of them; False with a forward set on the instance, another ``__call__``, or
    a method that other code has put on the class.
    """
    own, cls = module.__dict__, type(module)
    unchanged = _called_by_torch(cls) and all(
        name not in own and getattr(cls, name, None) is getattr(known, name, _MISSING) for name in methods
    )
    return unchanged and first_patched(known, (*CALLING, *methods)) is None


def _called_by_torch(cls: type[nn.Module]) -> bool:
    return all(getattr(cls, name) is getattr(nn.Module, name) for name in CALLING)


def runs_in_order(module: nn.Module | None) -> TypeGuard[nn.Sequential]:
    """Whether calling ``module`` runs its modules one after the other, as torch's Sequential does."""
    return isinstance(module, nn.Sequential) and runs_as(module, nn.Sequential, IN_ORDER)


def untouched(module: nn.Module) -> bool:
    """Whether ``module`` itself has no hook, no forward set on it or put on its class, and no parametrization."""
    return why_touched(module) is None


def why_touched(module: nn.Module) -> str | None:
    """A phrase for reports such as "has hooks", or None for a module that is :func:`untouched`."""
    if "forward" in module.__dict__:
        return "has a forward set on it"
    if not _called_by_torch(type(module)):
        return "has a __call__ of its own"
    patched = first_patched(type(module), _RUN)
    if patched is not None:
        return f"is of a class whose {patched} was replaced"
    if has_own_hooks(module):
        return "has hooks"
    return "has parametrizations" if parametrize.is_parametrized(module) else None
