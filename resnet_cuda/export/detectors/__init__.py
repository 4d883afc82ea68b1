"""torchvision's detectors in a form that torch.export can trace.

It cannot trace torchvision's own code, where sizes and loops depend on the detections. The exportable form has the same
modules and weights; the operations between them differ but give the same results.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from resnet_cuda.export.detectors.parts import foreign_part

__all__ = ["exportable", "foreign_part", "translations"]


def exportable(model: nn.Module) -> nn.Module:
    """A module that takes one image (3, H, W) and returns ``model``'s detections, with ``model``'s modules and weights.

    ``model`` must have run before.

    Raises:
        ValueError: naming the part that is not torchvision's own.
    """
    if foreign := foreign_part(model):
        raise ValueError(foreign)
    from resnet_cuda.export.detectors.rcnn import ExportableRCNN
    from resnet_cuda.export.detectors.retinanet import ExportableRetinaNet

    return (ExportableRCNN if hasattr(model, "roi_heads") else ExportableRetinaNet)(model).eval()


def translations() -> dict[Callable, Callable]:
    """``custom_translation_table`` for the operators in :func:`exportable`'s modules. Needs onnxscript."""
    from resnet_cuda.export.detectors import keypoints, suppression  # noqa: F401  # which register the operators
    from resnet_cuda.export.detectors.keypoints_onnx import onnx_keypoints_of

    return {
        torch.ops.resnet_cuda_export.class_nms.default: suppression.translation,
        torch.ops.resnet_cuda_export.keypoints_of.default: onnx_keypoints_of,
    }
