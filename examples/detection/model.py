"""torchvision's Mask R-CNN on a resnet_cuda backbone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator

import resnet_cuda


@dataclass(frozen=True)
class ModelOptions:
    """What a checkpoint stores to rebuild its model. The defaults are torchvision's Mask R-CNN R-50-FPN, with DCNv2."""

    class_names: tuple[str, ...] = ()
    backbone: str = "resnet50"
    norm: str = "frozen_bn"
    dcn_stages: tuple[bool, ...] = (False, True, True, True)
    width: int = 64
    fpn_channels: int = 256
    head_channels: int = 1024
    smallest_anchor: int = 32
    min_size: int = 800
    max_size: int = 1333
    proposals: int = 1000
    rois: int = 512
    trainable_layers: int = 5

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> ModelOptions:
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"the checkpoint has unknown model options {', '.join(unknown)}; allowed are {', '.join(sorted(known))}"
            )
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


# Small enough to learn the coins on two cores in minutes. Images are enlarged by 4/3: crops of 96 rows to 128, the
# held-out strip of 384 columns to 512.
COINS = ModelOptions(
    class_names=("coin",),
    backbone="resnet18",
    dcn_stages=(False, True, True, True),
    width=16,
    fpn_channels=64,
    head_channels=128,
    smallest_anchor=16,
    min_size=128,
    max_size=512,
    proposals=200,
    rois=64,
)


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
