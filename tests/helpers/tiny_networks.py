"""Networks with one block per stage, for what takes time per layer: exporters and compilers."""

from __future__ import annotations

import torch
from helpers.networks import randomise
from torch import nn

from resnet_cuda.fpn import FeaturePyramidNetwork, LastLevelMaxPool
from resnet_cuda.torchvision_backbone import BackboneWithFPN
from resnet_cuda.torchvision_body import VARIANTS, TorchvisionBody, Variant, norm_function

NAME = "tests' one block per stage"


def tiny(
    dcn: bool = True,
    modulated: bool = True,
    bottleneck: bool = False,
    norm: str = "frozen_bn",
    groups: int = 1,
    stages: int = 4,
) -> BackboneWithFPN:
    """Stem, C2 to C5 (or fewer ``stages``), pyramid, 8 channels; with ``dcn`` C4, or the last stage, is deformable.
    Statistics and offsets are not 0."""
    torch.manual_seed(0)
    returned = range(1, stages + 1)
    deformable = [dcn and stage == min(stages, 3) for stage in range(1, 5)]
    VARIANTS[NAME] = Variant(bottleneck, (1, 1, 1, 1))
    try:
        body = TorchvisionBody(NAME, norm_function(norm), returned, deformable, modulated, groups, width=8)
    finally:
        del VARIANTS[NAME]  # which other tests go through
    channels = [body.stage_channels[f"layer{stage}"] for stage in returned]
    return randomise(BackboneWithFPN(body, FeaturePyramidNetwork(channels, 8, LastLevelMaxPool()), 8))


def detector(backbone: nn.Module) -> nn.Module:
    """torchvision's Mask R-CNN with few and small proposals, in evaluation mode."""
    from torchvision.models.detection import MaskRCNN

    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 96, "rpn_pre_nms_top_n_test": 30, "rpn_post_nms_top_n_test": 10}
    return MaskRCNN(backbone, 5, box_detections_per_img=4, **sizes).eval()
