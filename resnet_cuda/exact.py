"""Checks whether a module computes exactly what a known class computes, without importing that class's library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TypeGuard

from torch import nn
from torch.nn.utils import parametrize

from resnet_cuda.layers.hooks import has_own_hooks

_MISSING = object()  # no class has it


def peer_class(path: str) -> type | None:
    """The class at a dotted path; None if its module has not been imported, so that no model can contain it."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def runs_as(module: nn.Module, known: type, methods: Sequence[str] = ("forward",)) -> bool:
    """Whether calling ``module`` runs the ``methods`` of the class ``known``.

    True for a subclass that overrides none of them; False with a forward set on the instance or another ``__call__``.
    """
    own, cls = module.__dict__, type(module)
    return cls.__call__ is nn.Module.__call__ and all(
        name not in own and getattr(cls, name, None) is getattr(known, name, _MISSING) for name in methods
    )


def runs_in_order(module: nn.Module | None) -> TypeGuard[nn.Sequential]:
    """Whether calling ``module`` runs its modules one after the other, as torch's Sequential does."""
    return isinstance(module, nn.Sequential) and runs_as(module, nn.Sequential, ("forward", "__iter__"))


def untouched(module: nn.Module) -> bool:
    """Whether ``module`` itself has no hook, no forward set on the instance and no parametrization."""
    return not has_own_hooks(module) and not parametrize.is_parametrized(module)


def why_touched(module: nn.Module) -> str | None:
    """A phrase for reports such as "has hooks", or None for a module that is :func:`untouched`."""
    if "forward" in module.__dict__:
        return "has a forward set on it"
    if type(module).__call__ is not nn.Module.__call__:
        return "has a __call__ of its own"
    if has_own_hooks(module):
        return "has hooks"
    return "has parametrizations" if parametrize.is_parametrized(module) else None
