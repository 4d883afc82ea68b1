"""Checks that a detector computes the same as this package's exportable form of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def foreign_part(model: nn.Module) -> str | None:
    """Why ``model`` cannot be exported as one of torchvision's detectors, in one sentence, or None if it can.

    A subclass may override what the exportable form calls (heads, backbone, normalize, grid_anchors, ...), but not the
    methods that it replaces.
    """
    parts = _parts(model)
    if parts is None:
        return f"a {type(model).__name__} is not torchvision's GeneralizedRCNN or RetinaNet"
    for name, part, original, methods in parts:
        for method in methods:
            if getattr(type(part), method, None) is not getattr(original, method) or method in vars(part):
                return (
                    f"{name} is a {type(part).__name__} whose {method} is not that of torchvision's {original.__name__}"
                )
        if isinstance(part, nn.Module) and (part._forward_hooks or part._forward_pre_hooks):
            return f"{name} has forward hooks"
    return None


def _parts(model: Any) -> list[tuple[str, Any, type, tuple[str, ...]]] | None:
    """Name, object, torchvision's class, and its methods that are replaced."""
    try:
        from torchvision.models.detection import RetinaNet
        from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
    except ImportError:
        return None
    if isinstance(model, GeneralizedRCNN):
        return [("the model", model, GeneralizedRCNN, ("forward",)), *_of_any(model, model.rpn), *_of_rcnn(model)]
    if isinstance(model, RetinaNet):
        replaced = ("forward", "postprocess_detections")
        return [("the model", model, RetinaNet, replaced), *_of_any(model, model)]
    return None


def _of_any(model: Any, proposer: Any) -> Iterator[tuple[str, Any, type, tuple[str, ...]]]:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    replaced = ("forward", "resize", "batch_images", "postprocess")
    yield "transform", model.transform, GeneralizedRCNNTransform, replaced
    yield "anchor_generator", proposer.anchor_generator, AnchorGenerator, ("forward",)


def _of_rcnn(model: Any) -> Iterator[tuple[str, Any, type, tuple[str, ...]]]:
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.roi_heads import RoIHeads
    from torchvision.models.detection.rpn import RegionProposalNetwork
    from torchvision.ops import MultiScaleRoIAlign

    yield "rpn", model.rpn, RegionProposalNetwork, ("forward", "filter_proposals", "_get_top_n_idx")
    yield "rpn.box_coder", model.rpn.box_coder, BoxCoder, ("decode",)
    yield "roi_heads", model.roi_heads, RoIHeads, ("forward", "postprocess_detections", "has_mask", "has_keypoint")
    yield "roi_heads.box_coder", model.roi_heads.box_coder, BoxCoder, ("decode",)
    for name in ("box_roi_pool", "mask_roi_pool", "keypoint_roi_pool"):
        pool = getattr(model.roi_heads, name)
        if pool is not None:
            yield f"roi_heads.{name}", pool, MultiScaleRoIAlign, ("forward",)
