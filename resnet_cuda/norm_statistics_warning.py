"""Warns once if a network is trained whose frozen norms never got statistics.

The warning is given at the first forward pass in training mode, not at construction: usually a network is built without
weights and a state dict is loaded afterwards. The check is a forward pre-hook that removes itself once it has run, so
later training steps cost nothing. In a free-threaded Python it stays and does nothing any more: there torch may be
going through a module's hooks in another thread, and fails where one is removed.

With random weights and initial frozen norms, C5 of a ResNet-50 has a standard deviation of 24, of a ResNet-101 of
85,000, compared with 1.2 for batch or group normalisation. The loss of Mask R-CNN on that ResNet-50 is NaN after two or
three steps of SGD (0.005, momentum 0.9), whichever parts of the body are trained; with the other norms it learns.
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda._gil import has_gil
from resnet_cuda.layers import FrozenBatchNorm2d

TEXT = (
    "{name} is being trained with FrozenBatchNorm2d layers that were never given statistics (mean 0, variance 1, "
    "weight 1, bias 0 in all {count} of them): they normalise nothing, activations grow from block to block, and "
    "losses of 1e5 and NaN follow. Load weights (weights=..., load_state_dict), measure the statistics with "
    "resnet_cuda.calibrate(model, images), or build it with another norm (norm_layer='gn' or 'bn'; in a configuration "
    "BottleneckWithGN and StemWithGN)."
)


def warn_at_first_training_step(body: nn.Module) -> None:
    """Makes the first forward pass of ``body`` in training mode warn if all its frozen norms are as constructed."""
    if any(isinstance(layer, FrozenBatchNorm2d) for layer in body.modules()):
        body._checked = set()  # type: ignore[assignment]
        body.register_forward_pre_hook(_check)


def _check(body: nn.Module, arguments: tuple[Tensor]) -> None:
    if not torch.jit.is_scripting():  # TorchScript compiles hooks; a scripted network has none of this
        _check_once(body, arguments)


def _check_once(body: nn.Module, arguments: tuple[Tensor | Proxy, ...]) -> None:
    # torch.nn.DataParallel's replicas of the body share it. A set is what TorchScript leaves alone.
    checked = body.__dict__.setdefault("_checked", set())
    # Evaluation may be for shapes or speed; the check stays for a training that follows.
    if checked or not body.training or _cannot_read_values():
        return
    if any(isinstance(it, Proxy) for it in arguments):  # torch.fx: torchvision traces a copy in training mode, too
        return
    checked.add(True)
    if has_gil():
        for key, hook in list(body._forward_pre_hooks.items()):
            if hook is _check:
                body._forward_pre_hooks.pop(key, None)  # another thread may have
    norms = [layer for layer in body.modules() if isinstance(layer, FrozenBatchNorm2d)]
    if norms and all(_as_constructed(layer) for layer in norms):
        warnings.warn(TEXT.format(name=type(body).__name__, count=len(norms)), stacklevel=2)


def _as_constructed(layer: FrozenBatchNorm2d) -> bool:
    values = ((layer.running_mean, 0), (layer.bias, 0), (layer.running_var, 1), (layer.weight, 1))
    if any(type(buffer) is not torch.Tensor or buffer.is_meta for buffer, _ in values):
        return False  # a fake tensor, a subclass, or meta: no values to compare
    return all(bool(torch.eq(buffer, value).all()) for buffer, value in values)


def _cannot_read_values() -> bool:
    """Whether reading a value would fail or be recorded: under tracing, functorch, dispatch modes or graph capture."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or ("torch.cuda" in sys.modules and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())
    )
