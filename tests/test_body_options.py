"""Of a configuration's bodies what maskrcnn-benchmark does not have: DC5 and other input channels."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import narrow_cfg, randomise

from resnet_cuda import build_backbone, resnet
from resnet_cuda.config import get_cfg
from resnet_cuda.layers import DFConv2d

BN = ("weight", "bias", "running_mean", "running_var")


def normalise(x, layer, name):
    weight, bias, mean, variance = (getattr(layer.get_submodule(name), key)[:, None, None] for key in BN)
    return (x - mean) / variance.sqrt() * weight + bias


def dilated_block(x, layer):
    """detectron2's res5 with RES5_DILATION 2: no stride, every 3x3 dilated by 2."""
    out = F.relu(normalise(F.conv2d(x, layer.conv1.weight), layer, "bn1"))
    out = F.relu(normalise(F.conv2d(out, layer.conv2.weight, None, 1, 2, 2), layer, "bn2"))
    out = normalise(F.conv2d(out, layer.conv3.weight), layer, "bn3")
    if layer.downsample is not None:
        x = normalise(F.conv2d(x, layer.downsample[0].weight), layer, "downsample.1")
    return F.relu(out + x)


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_dc5_equals_the_definition(stride_in_1x1, backend):
    backbone = randomise(build_backbone(narrow_cfg("R-50-DC5", STRIDE_IN_1X1=stride_in_1x1)).double())
    c4 = randomise(resnet.ResNet(narrow_cfg("R-50-C4", STRIDE_IN_1X1=stride_in_1x1)).double())
    c4.load_state_dict({k: v for k, v in backbone.body.state_dict().items() if not k.startswith("layer4")})
    x = torch.randn(1, 3, 49, 66, dtype=torch.float64)
    with torch.no_grad():
        (got,), (expected,) = backbone(x), c4(x)
        for layer in backbone.body.layer4:
            expected = dilated_block(expected, layer)
    assert got.shape == (1, 128, 4, 5)
    assert expected.abs().max() > 0
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_dc5_has_the_keys_of_c5(depth):
    with torch.device("meta"):
        shapes = [
            {key: value.shape for key, value in build_backbone(narrow_cfg(f"R-{depth}-{kind}")).state_dict().items()}
            for kind in ("C5", "DC5")
        ]
    assert shapes[0] == shapes[1]


def test_a_deformable_dc5(backend):
    dcn = {"STAGE_WITH_DCN": (False, False, False, True), "WITH_MODULATED_DCN": False}
    plain = randomise(build_backbone(narrow_cfg("R-50-DC5")))
    ours = build_backbone(narrow_cfg("R-50-DC5", **dcn))
    layers = {name: layer for name, layer in ours.named_modules() if isinstance(layer, DFConv2d)}
    assert len(layers) == 3
    assert {(it.conv.dilation, it.conv.padding, it.conv.stride) for it in layers.values()} == {((2, 2), (2, 2), (1, 1))}
    state = {
        f"{key.removesuffix('.weight')}.conv.weight" if key.removesuffix(".weight") in layers else key: value
        for key, value in plain.state_dict().items()
    }
    assert not ours.load_state_dict(state, strict=False).unexpected_keys
    x = torch.randn(1, 3, 50, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], plain(x)[0], rtol=1e-4, atol=1e-4)


def test_res5_dilation_does_not_change_a_body():
    """In maskrcnn-benchmark it is the RoI head's; in detectron2 the body's, so a body that does not read it warns."""
    message = "RES5_DILATION is 2, which no stage of R-50-C5 reads.*CONV_BODY R-50-DC5"
    with torch.device("meta"), pytest.warns(UserWarning, match=message):
        body = resnet.ResNet(narrow_cfg("R-50-C5", RES5_DILATION=2))
    assert body.output_shape()["res5"].stride == 32
    assert {layer.conv2.dilation for layer in body.layer4} == {(1, 1)}


@pytest.mark.parametrize(("body", "dilation"), [("R-50-C5", 1), ("R-50-DC5", 1), ("R-50-DC5", 2), ("R-50-C4", 2)])
def test_res5_dilation_warns_only_where_nothing_reads_it(body, dilation):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        resnet.ResNet(narrow_cfg(body, RES5_DILATION=dilation))


def test_a_head_of_dilated_stages():
    options = {"width_per_group": 8, "res2_out_channels": 16}
    spec = resnet.DilatedStageSpec(4, 1, False, 3)
    head = resnet.ResNetHead("BottleneckWithFixedBatchNorm", [spec], **options, dilation=2)
    assert head.layer4[0].conv2.dilation == (3, 3)
    head = resnet.ResNetHead("BottleneckWithFixedBatchNorm", [spec._replace(dilation=1)], **options, dilation=2)
    assert head.layer4[0].conv2.dilation == (2, 2)


def test_a_wrong_dilation_is_named(monkeypatch):
    monkeypatch.setitem(resnet._STAGE_SPECS, "mine", (resnet.DilatedStageSpec(1, 1, True, 0),))
    with pytest.raises(ValueError, match="StageSpec: dilation is 0; it must be at least 1"):
        resnet.ResNet(narrow_cfg("mine"))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("stem", ["StemWithFixedBatchNorm", "StemWithGN"])
def test_input_channels(channels, stem):
    cfg = narrow_cfg("R-50-C4", STEM_IN_CHANNELS=channels, STEM_FUNC=stem)
    cfg.MODEL.GROUP_NORM.NUM_GROUPS = 4
    body = resnet.ResNet(cfg)
    assert body.in_channels == body.stem.conv1.in_channels == channels
    assert body(torch.randn(1, channels, 32, 32))[0].shape == (1, 64, 2, 2)


def test_nodes_without_the_key_have_three():
    cfg = get_cfg()
    assert cfg.MODEL.RESNETS.STEM_IN_CHANNELS == 3
    settings = {key: value for key, value in cfg.MODEL.RESNETS.items() if key != "STEM_IN_CHANNELS"}
    node = SimpleNamespace(MODEL=SimpleNamespace(BACKBONE=cfg.MODEL.BACKBONE, RESNETS=SimpleNamespace(**settings)))
    with torch.device("meta"):
        assert resnet.ResNet(node).stem.conv1.in_channels == 3
    yacs = pytest.importorskip("yacs.config", reason="builds from a node of yacs")
    nodes = yacs.CfgNode({"MODEL": {"BACKBONE": dict(cfg.MODEL.BACKBONE), "RESNETS": settings}})
    with torch.device("meta"):
        assert resnet.ResNet(nodes).stem.conv1.in_channels == 3


@pytest.mark.parametrize(
    ("value", "message"), [(0, "is 0; it must be at least 1"), ("three", "is 'three'; it must be an integer")]
)
def test_wrong_input_channels_are_named(value, message):
    cfg = get_cfg()
    settings = SimpleNamespace(**{**cfg.MODEL.RESNETS, "STEM_IN_CHANNELS": value})
    node = SimpleNamespace(MODEL=SimpleNamespace(BACKBONE=cfg.MODEL.BACKBONE, RESNETS=settings))
    with pytest.raises(ValueError, match=f"MODEL.RESNETS.STEM_IN_CHANNELS {message}"):
        resnet.ResNet(node)
