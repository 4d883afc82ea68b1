"""Whether a module computes exactly what a known class computes, without importing the library of that class."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch import nn
from torch.nn.utils import parametrize

from resnet_cuda.layers.hooks import has_own_hooks


def peer_class(path: str) -> type | None:
    """The class of that dotted path; None where its module has not been imported, so that no model can have one."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def runs_as(module: nn.Module, known: type, methods: Sequence[str] = ("forward",)) -> bool:
    """Whether a call of ``module`` runs the ``methods`` of ``known``.

    A subclass does where it overrides none of them. A forward set on the instance, or another ``__call__``, does not.
    """
    own, cls = module.__dict__, type(module)
    return cls.__call__ is nn.Module.__call__ and all(
        name not in own and getattr(cls, name, None) is getattr(known, name, missing) for name in methods
    )


missing = object()  # no class has it


def untouched(module: nn.Module) -> bool:
    """Whether no hook, forward of its own or parametrization is on ``module`` itself."""
    return not has_own_hooks(module) and not parametrize.is_parametrized(module)


def why_touched(module: nn.Module) -> str | None:
    """What is on ``module`` in the words of a report, or None."""
    if "forward" in module.__dict__:
        return "has a forward set on it"
    if has_own_hooks(module):
        return "has hooks"
    return "has parametrizations" if parametrize.is_parametrized(module) else None
