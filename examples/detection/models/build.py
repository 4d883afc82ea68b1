"""torchvision's Mask R-CNN on a resnet_cuda backbone."""

from __future__ import annotations

from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator

import resnet_cuda
from detection.models.options import ModelOptions


def build_model(options: ModelOptions) -> MaskRCNN:
    """The detector with random weights."""
    if not options.class_names:
        raise ValueError("class_names is empty; it must name at least one class")
    backbone = resnet_cuda.resnet_fpn_backbone(
        options.backbone,
        trainable_layers=options.trainable_layers,
        norm_layer=options.norm,
        dcn_stages=options.dcn_stages,
        width=options.width,
        fpn_channels=options.fpn_channels,
    )
    classes = len(options.class_names) + 1  # label 0 is the background
    sizes = tuple((options.smallest_anchor * 2**level,) for level in range(5))
    mask_channels = min(256, options.fpn_channels)
    mask_layers = 4 if options.fpn_channels >= 256 else 2
    return MaskRCNN(
        backbone,
        min_size=options.min_size,
        max_size=options.max_size,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        rpn_pre_nms_top_n_train=2 * options.proposals,
        rpn_pre_nms_top_n_test=options.proposals,
        rpn_post_nms_top_n_train=options.proposals,
        rpn_post_nms_top_n_test=options.proposals,
        box_batch_size_per_image=options.rois,
        box_head=TwoMLPHead(options.fpn_channels * 7 * 7, options.head_channels),
        box_predictor=FastRCNNPredictor(options.head_channels, classes),
        mask_head=MaskRCNNHeads(options.fpn_channels, (mask_channels,) * mask_layers, 1),
        mask_predictor=MaskRCNNPredictor(mask_channels, mask_channels, classes),
    )
