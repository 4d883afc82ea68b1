"""Backbones by configuration [maskrcnn_benchmark.modeling.backbone.build_backbone]."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from resnet_cuda._arguments import flag, integer
from resnet_cuda.blocks import norm_of_config
from resnet_cuda.fpn import FPN, LastLevelMaxPool, LastLevelP6P7, conv_with_kaiming_uniform
from resnet_cuda.registry import Registry
from resnet_cuda.resnet import _STAGE_SPECS, ResNet

# A body that is none of these is looked up among the stage tables, whose error knows about FBNet.
BACKBONES = Registry("MODEL.BACKBONE.CONV_BODY")


@BACKBONES.register("R-50-C4")
@BACKBONES.register("R-50-C5")
@BACKBONES.register("R-101-C4")
@BACKBONES.register("R-101-C5")
def build_resnet_backbone(cfg: Any) -> nn.Sequential:
    """``body`` alone; its list has one level, of ``out_channels`` channels (1024 for C4, 2048 for C5)."""
    body = ResNet(cfg)
    model = nn.Sequential(OrderedDict([("body", body)]))
    model.out_channels = body.out_channels
    return model


@BACKBONES.register("R-50-FPN")
@BACKBONES.register("R-101-FPN")
@BACKBONES.register("R-152-FPN")
def build_resnet_fpn_backbone(cfg: Any) -> nn.Sequential:
    """``body`` and ``fpn``; P2 to P5 and, by max pooling, P6."""
    body = ResNet(cfg)
    out_channels = integer("", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS, 1)
    fpn = FPN(list(body.stage_channels.values()), out_channels, _conv_block(cfg), LastLevelMaxPool())
    return _with_pyramid(body, fpn)


@BACKBONES.register("R-50-FPN-RETINANET")
@BACKBONES.register("R-101-FPN-RETINANET")
def build_resnet_fpn_p3p7_backbone(cfg: Any) -> nn.Sequential:
    """``body`` and ``fpn``; P3 to P5, P6 from C5 (``MODEL.RETINANET.USE_C5``) or from P5, P7 from P6."""
    body = ResNet(cfg)
    out_channels = integer("", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS, 1)
    channels = list(body.stage_channels.values())
    use_c5 = flag("", "MODEL.RETINANET.USE_C5", cfg.MODEL.RETINANET.USE_C5)
    top = LastLevelP6P7(channels[-1] if use_c5 else out_channels, out_channels)
    # By its configuration, not by comparing channels: C5 and P5 might have equally many.
    top.use_P5 = not use_c5
    return _with_pyramid(body, FPN([0, *channels[1:]], out_channels, _conv_block(cfg), top))


def _conv_block(cfg: Any):
    use_gn = flag("", "MODEL.FPN.USE_GN", cfg.MODEL.FPN.USE_GN)
    use_relu = flag("", "MODEL.FPN.USE_RELU", cfg.MODEL.FPN.USE_RELU)
    return conv_with_kaiming_uniform(use_gn, use_relu, norm_of_config(cfg))


def _with_pyramid(body: ResNet, fpn: FPN) -> nn.Sequential:
    model = nn.Sequential(OrderedDict([("body", body), ("fpn", fpn)]))
    model.out_channels = fpn.out_channels
    return model


def build_backbone(cfg: Any) -> nn.Sequential:
    """The backbone that ``cfg.MODEL.BACKBONE.CONV_BODY`` names: ``body``, where asked ``fpn``, and ``out_channels``.

    ``forward`` (N, 3, H, W) gives a list (C4, C5) or a tuple (FPN) of levels, finest first.

    Args:
        cfg: any node with the attributes of :func:`resnet_cuda.config.get_cfg`.

    Raises:
        KeyError: for an unknown body, listing the known ones; FBNet, which is not a ResNet, is refused by name.
    """
    name = cfg.MODEL.BACKBONE.CONV_BODY
    if name not in BACKBONES:
        _ = _STAGE_SPECS[name]  # raises for what nobody registered
        raise KeyError(
            f"MODEL.BACKBONE.CONV_BODY {name!r} has stages but no builder; register one in resnet_cuda.backbones.BACKBONES"
        )
    return BACKBONES[name](cfg)
