"""Checks whether calling a module runs more than its class's forward."""

from __future__ import annotations

from typing import TypeGuard, TypeVar

from torch import nn
from torch.nn.modules import module as module_globals

from resnet_cuda.patched import Originals

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)
_Known = TypeVar("_Known", bound=nn.Module)
_FORWARDS = Originals("forward", nn.ReLU, nn.Identity, nn.Sequential)
_SEQUENCES, _ITERATIONS = Originals("forward", nn.Sequential), Originals("__iter__", nn.Sequential)


def has_own_hooks(module: nn.Module) -> bool:
    """Whether ``module`` itself has hooks or a forward set on it, or its class overrides ``__call__``."""
    own = module.__dict__
    for name in HOOKS:
        if own.get(name):
            return True
    return "forward" in own or type(module).__call__ is not nn.Module.__call__


def is_hooked(module: nn.Module) -> bool:
    """Whether calling ``module`` runs more than its class's forward: its own hooks or global ones."""
    for name in _GLOBAL_HOOKS:
        if getattr(module_globals, name):
            return True
    return has_own_hooks(module)


def runs_only(module: nn.Module | None, known: type[_Known]) -> TypeGuard[_Known]:
    """Whether ``module``, whose class is ``known`` (ReLU, Identity or Sequential), runs torch's forward alone."""
    return type(module) is known and known.forward in _FORWARDS and not is_hooked(module)


def is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether calling ``module`` runs the modules of a Sequential, of whatever subclass, in order and nothing else.

    Cheap enough for each call, where :func:`resnet_cuda.exact.runs_in_order` is not.
    """
    if not isinstance(module, nn.Sequential):
        return False
    cls = type(module)
    return cls.forward in _SEQUENCES and cls.__iter__ in _ITERATIONS and not is_hooked(module)


def is_relu(module: nn.Module) -> bool:
    """Whether calling ``module`` applies a ReLU and runs nothing else."""
    return runs_only(module, nn.ReLU)
