"""torchvision's detectors on a resnet_cuda backbone."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator

import resnet_cuda
from detection.models.options import LEVELS, ModelOptions
from resnet_cuda.fpn import LastLevelP6P7


def build_model(options: ModelOptions) -> nn.Module:
    """The detector with random weights: torchvision's MaskRCNN, FasterRCNN, KeypointRCNN or RetinaNet.

    In training it takes images (each (3, H, W) float32 in 0..1) and their targets, and gives a dict of losses; in eval
    mode it takes images, and gives a dict of boxes, labels, scores and, by its kind, masks or keypoints for each.
    Without deformable stages, and with the other options at their defaults, the keys and shapes of ``state_dict()``
    are those of torchvision's ``*_resnet50_fpn``. Label 0 is the background, in RetinaNet a class without objects.

    Raises:
        ValueError: without ``class_names``, or for keypointrcnn without ``keypoint_names``.
    """
    if not options.class_names:
        raise ValueError("class_names is empty; it must name at least one class")
    if options.kind == "keypointrcnn" and not options.keypoint_names:
        raise ValueError("keypoint_names is empty; for keypointrcnn it must name at least one keypoint")
    if options.kind == "retinanet":
        return _retinanet(options)
    backbone = resnet_cuda.resnet_fpn_backbone(options.backbone, **_backbone_options(options))
    arguments = _rcnn_arguments(options)
    if options.kind == "fasterrcnn":
        return detection.FasterRCNN(backbone, **arguments)
    if options.kind == "maskrcnn":
        return detection.MaskRCNN(backbone, **arguments, **_mask_heads(options))
    return detection.KeypointRCNN(backbone, **arguments, **_keypoint_heads(options))


def _backbone_options(options: ModelOptions) -> dict[str, Any]:
    return {
        "trainable_layers": options.resolved(pretrained=False).trainable_layers,
        "norm_layer": options.norm,
        "dcn_stages": options.dcn_stages,
        "width": options.width,
        "fpn_channels": options.fpn_channels,
    }


def _rcnn_arguments(options: ModelOptions) -> dict[str, Any]:
    sizes = tuple((size,) for size in options.anchor_sizes)
    return {
        "min_size": options.min_size,
        "max_size": options.max_size,
        "rpn_anchor_generator": AnchorGenerator(sizes, (options.anchor_ratios,) * LEVELS),
        "rpn_pre_nms_top_n_train": 2 * options.proposals,
        "rpn_pre_nms_top_n_test": options.proposals,
        "rpn_post_nms_top_n_train": 2 * options.proposals,
        "rpn_post_nms_top_n_test": options.proposals,
        "box_batch_size_per_image": options.rois,
        "box_head": TwoMLPHead(options.fpn_channels * 7 * 7, options.head_channels),
        "box_predictor": FastRCNNPredictor(options.head_channels, _classes(options)),
    }


def _classes(options: ModelOptions) -> int:
    return len(options.class_names) + 1  # label 0


def _mask_heads(options: ModelOptions) -> dict[str, Any]:
    """torchvision's; narrower and less deep on a narrow pyramid."""
    channels = min(256, options.fpn_channels)
    layers = 4 if options.fpn_channels >= 256 else 2
    return {
        "mask_head": MaskRCNNHeads(options.fpn_channels, (channels,) * layers, 1),
        "mask_predictor": MaskRCNNPredictor(channels, channels, _classes(options)),
    }


def _keypoint_heads(options: ModelOptions) -> dict[str, Any]:
    """Likewise."""
    channels = min(512, 2 * options.fpn_channels)
    layers = 8 if options.fpn_channels >= 256 else 4
    return {
        "keypoint_head": KeypointRCNNHeads(options.fpn_channels, (channels,) * layers),
        "keypoint_predictor": KeypointRCNNPredictor(channels, len(options.keypoint_names)),
    }


def _retinanet(options: ModelOptions) -> nn.Module:
    """C3 to C5, and P6 and P7 made of P5; three anchors of each size and ratio, as in torchvision."""
    top = LastLevelP6P7(options.fpn_channels, options.fpn_channels)
    backbone = resnet_cuda.resnet_fpn_backbone(
        options.backbone, returned_layers=[2, 3, 4], extra_blocks=top, **_backbone_options(options)
    )
    sizes = tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in options.anchor_sizes)
    return detection.RetinaNet(
        backbone,
        _classes(options),
        min_size=options.min_size,
        max_size=options.max_size,
        anchor_generator=AnchorGenerator(sizes, (options.anchor_ratios,) * LEVELS),
        topk_candidates=options.proposals,
    )
