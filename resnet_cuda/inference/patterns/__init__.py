"""Fusion patterns of each library's modules: which convolution and ReLU belong to each norm."""

from __future__ import annotations

from torch import nn

from resnet_cuda.exact import peer_class, runs_as
from resnet_cuda.inference.pattern import Known, Pattern
from resnet_cuda.inference.patterns import detectron2, mmcv, mmdetection, own, timm, torchvision

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
