"""Helpers to run a user's model and observe its layers: unwraps the model, and restores its state afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def unwrapped(model: Any) -> nn.Module:
    """``model`` without DistributedDataParallel, which synchronises, and torch.compile, which ignores new hooks."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model


def is_detector(model: nn.Module) -> bool:
    """Whether ``model`` is a detector of torchvision; does not import torchvision."""
    module = sys.modules.get("torchvision.models.detection.transform")
    return module is not None and isinstance(getattr(model, "transform", None), module.GeneralizedRCNNTransform)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Sets evaluation mode; afterwards restores each module's mode and the random number generators."""
    modes = {module: module.training for module in model.modules()}
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    indices = sorted(device.index for device in devices)
    try:
        with torch.random.fork_rng(indices):
            model.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
