"""Backbones by configuration [maskrcnn_benchmark.modeling.backbone.build_backbone]."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from torch import nn

from resnet_cuda._arguments import flag, integer
from resnet_cuda.blocks import norm_of_config
from resnet_cuda.fpn import FPN, LastLevelMaxPool, LastLevelP6P7, conv_with_kaiming_uniform
from resnet_cuda.fpn_levels import levels_of_fpn
from resnet_cuda.output_shape import HasOutputShape, Level, levels_within
from resnet_cuda.registry import Registry
from resnet_cuda.resnet import _STAGE_SPECS, ResNet
from resnet_cuda.stage_specs import BLOCK_COUNTS, RETURNED_STAGES


class Backbone(HasOutputShape, nn.Sequential):
    """``body`` and, with a pyramid, ``fpn``; ``out_channels``, ``output_shape()`` and the rest that detectors use.

    ``forward`` (N, C, H, W) gives levels, finest first: a list of (N, channels, h, w) of the body, or with a pyramid a
    tuple of (N, out_channels, h, w).
    """

    if TYPE_CHECKING:  # TorchScript would look for types of its own by these names
        body: ResNet
        fpn: FPN
        out_channels: int

    def levels(self) -> list[Level]:
        inputs = levels_within("body", self.body)
        return levels_of_fpn("fpn", self.fpn, inputs) if hasattr(self, "fpn") else inputs


def _backbone(body: ResNet, fpn: FPN | None = None) -> Backbone:
    parts: list[tuple[str, nn.Module]] = [("body", body)] if fpn is None else [("body", body), ("fpn", fpn)]
    backbone = Backbone(OrderedDict(parts))  # Sequential's own arguments, as its slices call it
    backbone.out_channels = body.out_channels if fpn is None else fpn.out_channels
    return backbone


def build_resnet_backbone(cfg: Any) -> Backbone:
    """``body`` alone; its list has one level, of ``out_channels`` channels (1024 for C4, 2048 for C5 and DC5)."""
    return _backbone(ResNet(cfg))


def build_resnet_fpn_backbone(cfg: Any) -> Backbone:
    """``body`` and ``fpn``; P2 to P5 and, by max pooling, P6."""
    body = ResNet(cfg)
    return _with_fpn(cfg, body, list(_returned_channels(body).values()), LastLevelMaxPool())


def build_resnet_fpn_p3p7_backbone(cfg: Any) -> Backbone:
    """``body`` and ``fpn``; P3 to P5, P6 from C5 (``MODEL.RETINANET.USE_C5``) or from P5, P7 from P6."""
    body = ResNet(cfg)
    out_channels = _fpn_channels(cfg)
    channels = _returned_channels(body)
    use_c5 = flag("", "MODEL.RETINANET.USE_C5", cfg.MODEL.RETINANET.USE_C5)
    top = LastLevelP6P7([*channels.values()][-1] if use_c5 else out_channels, out_channels)
    # LastLevelP6P7 compares channels; C5 and P5 may have equally many, and the configuration decides.
    top.use_P5 = not use_c5
    return _with_fpn(cfg, body, [0 if name == "layer1" else count for name, count in channels.items()], top)


def _returned_channels(body: ResNet) -> dict[str, int]:
    return {name: channels for name, channels in body.stage_channels.items() if body.return_features[name]}


def _fpn_channels(cfg: Any) -> int:
    return integer("", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS, 1)


def _with_fpn(cfg: Any, body: ResNet, in_channels: list[int], top: nn.Module) -> Backbone:
    use_gn = flag("", "MODEL.FPN.USE_GN", cfg.MODEL.FPN.USE_GN)
    use_relu = flag("", "MODEL.FPN.USE_RELU", cfg.MODEL.FPN.USE_RELU)
    conv_block = conv_with_kaiming_uniform(use_gn, use_relu, norm_of_config(cfg))
    return _backbone(body, FPN(in_channels, _fpn_channels(cfg), conv_block, top))


_BUILDERS = {
    "C4": build_resnet_backbone,
    "C5": build_resnet_backbone,
    "DC5": build_resnet_backbone,
    "FPN": build_resnet_fpn_backbone,
    "FPN-RETINANET": build_resnet_fpn_p3p7_backbone,
}
BACKBONES = Registry(
    "MODEL.BACKBONE.CONV_BODY",
    {f"R-{depth}-{kind}": _BUILDERS[kind] for depth in BLOCK_COUNTS for kind in RETURNED_STAGES},
)


def build_backbone(cfg: Any) -> Backbone:
    """Builds the backbone named by ``cfg.MODEL.BACKBONE.CONV_BODY``: ``body``, for FPN ``fpn``, and ``out_channels``
    [maskrcnn_benchmark.modeling.backbone.build_backbone].

    ``forward`` (N, C, H, W) gives a list (C4, C5, DC5) or a tuple (FPN) of levels, finest first. ``output_shape()``
    names them "res4" (C4), "res5" (C5, DC5), "p2".."p6" (FPN), "p3".."p7" (FPN-RETINANET). C is
    ``MODEL.RESNETS.STEM_IN_CHANNELS``.

    The bodies are R-50, R-101 and R-152 with C4, C5, FPN, FPN-RETINANET or DC5. DC5, which maskrcnn-benchmark does not
    have, is C5 at stride 16: its first block has no stride, and its 3x3 convolutions are dilated by 2 [detectron2].

    Args:
        cfg: any node with the attributes of :func:`resnet_cuda.config.get_cfg`.

    Raises:
        KeyError: for an unknown body, block or stem, listing the known ones; FBNet is not supported, since it is not a
            ResNet.
        ValueError: for a value that cannot be built, naming its key.
    """
    name = cfg.MODEL.BACKBONE.CONV_BODY
    if name not in BACKBONES:
        _ = _STAGE_SPECS[name]  # its KeyError lists the known names, and knows FBNet
        raise KeyError(
            f"MODEL.BACKBONE.CONV_BODY {name!r} has stages but no builder; "
            "register one in resnet_cuda.backbones.BACKBONES"
        )
    return BACKBONES[name](cfg)
