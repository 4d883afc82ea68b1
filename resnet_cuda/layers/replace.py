"""Replaces layers in a module tree, all or none of them; shared modules stay shared."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.utils import parametrize

from resnet_cuda.layers.hooks import has_own_hooks


def replace_layers(
    function: str, module: nn.Module, selects: Callable[[nn.Module], bool], make: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Replaces every layer in ``module``, or itself, that ``selects`` finds by ``make(layer)``; returns the result.

    A shared layer is replaced by one shared layer. Each new layer has the old one's training mode.

    Raises:
        ValueError: if a layer has hooks, a forward set on it, a class with its own ``__call__`` or parametrizations,
            which the new one would not have. Nothing has changed then.
    """
    made: dict[nn.Module, nn.Module] = {}
    for name, layer in module.named_modules():
        if not selects(layer):
            continue
        if type(layer).__call__ is not nn.Module.__call__:
            raise ValueError(f"{function}: layer {name or 'module'} has a __call__ of its own, which would be lost")
        if has_own_hooks(layer) or _has_state_dict_hooks(layer):
            raise ValueError(f"{function}: layer {name or 'module'} has hooks; remove them first, they would be lost")
        if parametrize.is_parametrized(layer):
            raise ValueError(
                f"{function}: layer {name or 'module'} has parametrizations; remove them first, they would be lost"
            )
        made[layer] = make(layer).train(layer.training)
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child in made:
                parent._modules[name] = made[child]
    return made.get(module, module)


def _has_state_dict_hooks(layer: nn.Module) -> bool:
    names = ("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")
    return any(getattr(layer, name) for name in names)
