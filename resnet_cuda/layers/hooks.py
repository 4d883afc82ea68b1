"""Checks whether calling a module runs more than its class's forward."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as module_globals

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)


def has_own_hooks(module: nn.Module) -> bool:
    """Whether hooks are registered on ``module`` itself, or a forward is set on it."""
    own = module.__dict__
    for name in HOOKS:
        if own.get(name):
            return True
    return "forward" in own


def is_hooked(module: nn.Module) -> bool:
    """Whether calling ``module`` runs more than its class's forward: its own hooks or global ones."""
    for name in _GLOBAL_HOOKS:
        if getattr(module_globals, name):
            return True
    return has_own_hooks(module)
