"""Pyramids and the builders around them."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import resnet_cuda
from resnet_cuda import resnet
from resnet_cuda.config import get_cfg
from resnet_cuda.fpn import FPN, LastLevelMaxPool, LastLevelP6P7, conv_with_kaiming_uniform
from resnet_cuda.layers import group_norm

SIZES = [(17, 23), (9, 12), (5, 6)]  # not twice the next one


def levels(channels):
    return [torch.randn(2, count, *size) for count, size in zip(channels, SIZES, strict=True)]


def conv(x, state, key, padding=0, stride=1):
    return F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], stride, padding)


def definition(x, state, first=0):
    """Lateral convolutions, nearest-neighbour enlargement to the lateral's size, output convolutions."""
    inner, results = None, []
    for index in range(len(x) - 1, first - 1, -1):
        lateral = conv(x[index], state, f"fpn_inner{index + 1}")
        if inner is not None:
            rows = torch.arange(lateral.shape[2]) * inner.shape[2] // lateral.shape[2]
            columns = torch.arange(lateral.shape[3]) * inner.shape[3] // lateral.shape[3]
            lateral = lateral + inner[:, :, rows][:, :, :, columns]
        inner = lateral
        results.insert(0, conv(inner, state, f"fpn_layer{index + 1}", padding=1))
    return results


def test_values_at_sizes_that_do_not_halve():
    pyramid = FPN([4, 6, 8], 5, conv_with_kaiming_uniform(), LastLevelMaxPool())
    x = levels([4, 6, 8])
    outputs = pyramid(x)
    expected = definition(x, pyramid.state_dict())
    assert len(outputs) == 4
    for got, wanted in zip(outputs, expected, strict=False):
        torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(outputs[3], outputs[2][:, :, ::2, ::2])


@pytest.mark.parametrize("from_c5", [True, False])
def test_p6_and_p7_come_from_c5_or_p5(from_c5):
    top = LastLevelP6P7(8 if from_c5 else 5, 5)
    pyramid = FPN([0, 6, 8], 5, conv_with_kaiming_uniform(), top)
    x = levels([4, 6, 8])
    p4, p5, p6, p7 = pyramid(x)
    state = pyramid.state_dict()
    expected = definition(x, state, first=1)
    torch.testing.assert_close(p4, expected[0])
    torch.testing.assert_close(p5, expected[1])
    torch.testing.assert_close(p6, conv(x[-1] if from_c5 else p5, state, "top_blocks.p6", 1, 2))
    torch.testing.assert_close(p7, conv(p6.relu(), state, "top_blocks.p7", 1, 2))
    assert not any(key.startswith("fpn_inner1") for key in state)


@pytest.mark.parametrize(
    ("use_gn", "use_relu", "keys"),
    [
        (False, False, {"weight", "bias"}),
        (True, False, {"0.weight", "1.weight", "1.bias"}),
        (False, True, {"0.weight", "0.bias"}),
        (True, True, {"0.weight", "1.weight", "1.bias"}),
    ],
)
def test_norm_and_relu_follow_each_convolution(use_gn, use_relu, keys):
    make = conv_with_kaiming_uniform(use_gn, use_relu, partial(group_norm, num_groups=5))
    module = make(4, 5, 3)
    assert set(module.state_dict()) == keys
    output = module(torch.randn(1, 4, 6, 6))
    assert output.shape == (1, 5, 6, 6)
    assert bool((output >= 0).all()) == use_relu


def test_the_last_level_must_be_there():
    with pytest.raises(ValueError, match=r"in_channels_list is \[4, 0\]; its last entry must be positive"):
        FPN([4, 0], 5, conv_with_kaiming_uniform())


@pytest.mark.parametrize(
    ("body", "channels", "strides"),
    [
        ("R-50-C4", 1024, [16]),
        ("R-50-C5", 2048, [32]),
        ("R-50-FPN", 64, [4, 8, 16, 32, 64]),
        ("R-50-FPN-RETINANET", 64, [8, 16, 32, 64, 128]),
    ],
)
def test_built_backbones_have_their_channels_and_strides(body, channels, strides):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.CONV_BODY = body
    if "FPN" in body:
        cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS = channels
    with torch.device("meta"):
        backbone = resnet_cuda.build_backbone(cfg)
        outputs = backbone(torch.randn(1, 3, 256, 384))
    assert backbone.out_channels == channels
    assert [tuple(output.shape) for output in outputs] == [(1, channels, 256 // s, 384 // s) for s in strides]
    assert {key.split(".")[0] for key in backbone.state_dict()} == ({"body", "fpn"} if "FPN" in body else {"body"})


def test_a_built_backbone_is_a_sequence_that_can_be_sliced():
    backbone = resnet_cuda.build_backbone(get_cfg())
    assert list(backbone[:1].state_dict()) == list(backbone.state_dict())[: len(backbone[:1].state_dict())]
    assert len(backbone[:1]) == 1


def test_unknown_bodies_and_parts_are_named():
    cfg = get_cfg()
    for name, value in (("CONV_BODY", "R-51"), ("TRANS_FUNC", "Nothing"), ("STEM_FUNC", "Nothing")):
        node = cfg.clone()
        setattr(node.MODEL.BACKBONE if name == "CONV_BODY" else node.MODEL.RESNETS, name, value)
        with pytest.raises(KeyError, match=f"unknown MODEL.*{name} '{value}'; allowed are"):
            resnet_cuda.build_backbone(node)


def test_a_stage_table_without_a_builder_is_refused(monkeypatch):
    monkeypatch.setitem(resnet._STAGE_SPECS, "R-1-C2", (resnet.StageSpec(1, 1, True),))
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.CONV_BODY = "R-1-C2"
    with pytest.raises(KeyError, match="has stages but no builder"):
        resnet_cuda.build_backbone(cfg)
    monkeypatch.setitem(resnet_cuda.backbones.BACKBONES, "R-1-C2", lambda node: nn.Identity())
    assert isinstance(resnet_cuda.build_backbone(cfg), nn.Identity)


def test_any_node_with_the_attributes_builds():
    """As a yacs CfgNode, which is no class of ours."""
    cfg = get_cfg()
    sections = {name: SimpleNamespace(**getattr(cfg.MODEL, name)) for name in ("BACKBONE", "RESNETS")}
    node = SimpleNamespace(MODEL=SimpleNamespace(**sections))
    with torch.device("meta"):
        assert (
            resnet_cuda.build_backbone(node).state_dict().keys() == resnet_cuda.build_backbone(cfg).state_dict().keys()
        )
