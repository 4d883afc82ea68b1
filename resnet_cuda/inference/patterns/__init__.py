"""Fusion patterns of each library's modules: which convolution and ReLU belong to each norm."""

from __future__ import annotations

from torch import nn

from resnet_cuda.exact import IN_ORDER, peer_class, runs_as
from resnet_cuda.inference.pattern import Known, Pattern
from resnet_cuda.inference.patterns import detectron2, mmcv, mmdetection, own, timm, torchvision
from resnet_cuda.patched import first_patched

_KNOWN: tuple[Known, ...] = (
    *own.KNOWN,
    *torchvision.KNOWN,
    *timm.KNOWN,
    *detectron2.KNOWN,
    *mmdetection.KNOWN,
    *mmcv.KNOWN,
)


def describe(module: nn.Module) -> Pattern | None:
    """The fusion pattern of ``module``; None if its forward is not that of a known class."""
    for known in _KNOWN:
        found = peer_class(known.path)
        if found is not None and isinstance(module, found) and runs_as(module, found, known.methods):
            return known.describe(module)
    return None


def replaced_method(module: nn.Module) -> str | None:
    """The method of a known class that other code has replaced, so that ``module`` may compute something else."""
    classes = [(nn.Sequential, IN_ORDER), *((peer_class(known.path), known.methods) for known in _KNOWN)]
    for found, methods in classes:
        if found is not None and isinstance(module, found):
            patched = first_patched(found, methods)
            if patched is not None:
                return f"{found.__module__}.{found.__name__}.{patched}"
    return None
