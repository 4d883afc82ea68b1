"""Checks whether calling a module runs more than its class's forward."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as module_globals

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)


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


def is_relu(module: nn.Module) -> bool:
    """Whether calling ``module`` applies a ReLU and runs nothing else."""
    return type(module) is nn.ReLU and not is_hooked(module)
