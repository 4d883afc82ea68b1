"""Flags, integers and pairs: what torch's layers take is taken, and nothing means something else than it says."""

from __future__ import annotations

from collections import UserList
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.networks import deformable_stages

import resnet_cuda
from resnet_cuda import layers, ops, reference, resnet
from resnet_cuda._arguments import flag, flags, integer, pair
from resnet_cuda.config import DEFAULTS, get_cfg
from resnet_cuda.layers import DFConv2d

# Each is true or false to Python, and none of them is a flag.
NO_FLAGS = ["False", "0111", 0, 1, 1.0, None, torch.tensor(True), [True]]


@pytest.mark.parametrize(
    "stages", ["0111", (0, 1, 1, 1), [False, "True", True, True], torch.tensor([False, True, True, True]), 4, None]
)
def test_dcn_stages_of_anything_but_bools_are_refused(stages):
    with torch.device("meta"), pytest.raises(ValueError, match=r"dcn_stages is .*; it must be 4 of True and False"):
        resnet_cuda.resnet_fpn_backbone("resnet18", dcn_stages=stages)


# A list of a class of its own: OmegaConf's, which hydra's instantiate() gives, is none of Python's either.
@pytest.mark.parametrize("kind", [tuple, np.array, UserList])
def test_dcn_stages_of_bools_are_taken(kind):
    stages = kind([False, True, False, True])
    with torch.device("meta"):
        assert deformable_stages(resnet_cuda.resnet_fpn_backbone("resnet18", dcn_stages=stages)) == {"layer2", "layer4"}


def test_lists_of_any_class_are_taken():
    with torch.device("meta"):
        backbone = resnet_cuda.resnet_fpn_backbone("resnet18", returned_layers=UserList([2, 3]), extra_blocks=None)
        assert list(backbone.output_shape()) == ["0", "1", "pool"]
        layer = layers.DeformConv2d(4, 4, UserList([3, 1]), stride=UserList([2, 1]))
    assert (layer.kernel_size, layer.stride) == ((3, 1), (2, 1))


@pytest.mark.parametrize("value", NO_FLAGS, ids=repr)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("modulated", lambda value: resnet_cuda.resnet_fpn_backbone("resnet18", modulated=value)),
        ("bias", lambda value: layers.DeformConv2d(4, 4, 3, bias=value)),
        ("bias", lambda value: DFConv2d(4, 4, bias=value)),
        ("with_modulated_dcn", lambda value: DFConv2d(4, 4, value)),
        ("stage_with_dcn", lambda value: bottleneck(stage_with_dcn=value)),
        ("with_modulated_dcn", lambda value: bottleneck(stage_with_dcn=True, with_modulated_dcn=value)),
        ("stride_in_1x1", lambda value: resnet.BottleneckWithGN(32, 32, 32, stride_in_1x1=value)),
        (
            "stage_with_dcn",
            lambda value: resnet.ResNetHead(
                "BottleneckWithGN", [resnet.StageSpec(4, 1, False)], dcn_config={"stage_with_dcn": value}
            ),
        ),
        ("use_gn", lambda value: resnet_cuda.fpn.conv_with_kaiming_uniform(value)),
        ("use_relu", lambda value: resnet_cuda.fpn.conv_with_kaiming_uniform(False, value)),
    ],
)
def test_flags_are_bools(name, build, value):
    with torch.device("meta"), pytest.raises(ValueError, match=rf"{name}.* is .*; it must be True or False"):
        build(value)


def bottleneck(**dcn_config):
    return resnet.BottleneckWithFixedBatchNorm(32, 32, 32, dcn_config=dcn_config)


def foreign(section, key, value):
    """A node of plain namespaces, which check nothing themselves."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.CONV_BODY = "R-50-FPN-RETINANET"
    sections = {
        name: SimpleNamespace(**{key: getattr(getattr(cfg.MODEL, name), key) for key in keys})
        for name, keys in DEFAULTS.items()
    }
    setattr(sections[section], key, value)
    return SimpleNamespace(MODEL=SimpleNamespace(**sections))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("RESNETS", "STAGE_WITH_DCN", "0111"),
        ("RESNETS", "STAGE_WITH_DCN", (0, 1, 1, 1)),
        ("RESNETS", "WITH_MODULATED_DCN", "False"),
        ("RESNETS", "STRIDE_IN_1X1", "False"),
        ("RESNETS", "STRIDE_IN_1X1", 0),
        ("RESNETS", "NUM_GROUPS", True),
        ("RESNETS", "WIDTH_PER_GROUP", "64"),
        ("RESNETS", "DEFORMABLE_GROUPS", 1.0),
        ("RESNETS", "BACKBONE_OUT_CHANNELS", True),
        ("BACKBONE", "FREEZE_CONV_BODY_AT", True),
        ("FPN", "USE_GN", "False"),
        ("FPN", "USE_RELU", 1),
        ("RETINANET", "USE_C5", "False"),
    ],
)
def test_wrong_values_of_a_foreign_configuration_are_named(section, key, value):
    with torch.device("meta"):
        with pytest.raises(ValueError, match=rf"^MODEL\.{section}\.{key} is .*; it must be "):
            resnet_cuda.build_backbone(foreign(section, key, value))
        resnet_cuda.build_backbone(foreign("FPN", "USE_GN", np.bool_(True)))
        resnet_cuda.build_backbone(foreign("RESNETS", "NUM_GROUPS", np.int64(1)))


def test_a_text_for_a_flag_in_a_stage_table_is_refused(monkeypatch):
    monkeypatch.setitem(resnet._STAGE_SPECS, "R-50-text", (resnet.StageSpec(1, 1, "False"),))
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.CONV_BODY = "R-50-text"
    with torch.device("meta"), pytest.raises(ValueError, match="return_features is 'False'"):
        resnet.ResNet(cfg)


SIZES = [np.int64(3), (np.int32(3), np.uint8(3)), np.array([3, 3]), [3, np.int16(3)]]


@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_layers_take_numpy_integers(size, backend):
    one, two = np.int64(1), np.int64(2)
    plain = DFConv2d(4, 6, True, 3, 1, 2, 1, 2)
    layer = DFConv2d(np.int64(4), np.int32(6), np.bool_(True), size, one, two, one, two, np.bool_(False))
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(1, 4, 7, 8)
    torch.testing.assert_close(layer(x), plain(x))
    assert {type(n) for n in (*layer.conv.kernel_size, layer.conv.groups, layer.conv.in_channels)} == {int}
    repr(layer)
    layers.DeformConv2d(np.int64(4), 6, size, one, (one, one), np.int8(1), two)
    layers.DeformConv(4, 6, size, deformable_groups=np.int16(2))


@pytest.mark.parametrize("function", [ops.deform_conv2d, reference.deform_conv2d])
def test_operators_take_numpy_integers(function, backend):
    x, offset, weight = torch.randn(1, 4, 7, 8), torch.randn(1, 18, 4, 8), torch.randn(6, 4, 3, 3)
    expected = function(x, offset, weight, None, (2, 1), 1)
    got = function(x, offset, weight, None, np.array([2, 1]), np.int32(1), (np.int64(1), np.uint8(1)))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("value", [True, np.bool_(True), (1, True), "2", 1.0, torch.tensor(1), (1, 1, 1), b"11", None])
@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
def test_what_is_no_pair_of_integers_is_refused(name, value, backend):
    x, offset, weight = torch.randn(1, 4, 7, 8), torch.randn(1, 18, 5, 6), torch.randn(6, 4, 3, 3)
    message = rf"{name} is .*; it must be an int or two ints \(vertical, horizontal\)"
    for function in (ops.deform_conv2d, reference.deform_conv2d):
        with pytest.raises(ValueError, match=f"deform_conv2d: {message}"):
            function(x, offset, weight, **{name: value})
    with pytest.raises(ValueError, match=f"DeformConv2d: {message}"):
        layers.DeformConv2d(4, 6, 3, **{name: value})


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "groups", "deformable_groups"])
@pytest.mark.parametrize("value", [True, "4", 4.0, None, np.bool_(True), 0, -1])
def test_what_is_no_count_is_refused(name, value):
    for layer in (layers.ModulatedDeformConv, DFConv2d):
        arguments = {"in_channels": 4, "out_channels": 4, "kernel_size": 3} | {name: value}
        with pytest.raises(ValueError, match=rf"{name} is .*; it must (be an integer|be at least 1|divide)"):
            layer(**arguments)


def test_the_backbone_takes_numpy_integers():
    numbers = {"trainable_layers": 4, "width": 16, "fpn_channels": 8, "deformable_groups": 2}

    def build(returned_layers, numbers):
        with torch.device("meta"):
            return resnet_cuda.resnet_fpn_backbone(
                "resnet18", dcn_stages=[True] * 4, returned_layers=returned_layers, **numbers
            )

    ours = build(np.array([2, 3]), {name: np.int64(value) for name, value in numbers.items()})
    found, expected = (
        {name: (it.shape, it.requires_grad) for name, it in network.named_parameters()}
        for network in (ours, build([2, 3], numbers))
    )
    assert found == expected
    assert type(ours.out_channels) is int


@pytest.mark.parametrize("value", [True, "3", 3.0, None, np.bool_(True)])
@pytest.mark.parametrize("name", ["trainable_layers", "width", "fpn_channels", "deformable_groups"])
def test_what_is_no_integer_is_refused_by_the_backbone(name, value):
    with torch.device("meta"), pytest.raises(ValueError, match=rf"{name} is .*; it must be an integer"):
        resnet_cuda.resnet_fpn_backbone("resnet18", **{name: value})
    with torch.device("meta"), pytest.raises(ValueError, match="returned_layers is True; it must be an integer"):
        resnet_cuda.resnet_fpn_backbone("resnet18", returned_layers=[True, 2])


def test_flag_integer_and_pair():
    assert flag("f", "a", np.bool_(False)) is False
    assert flags("f", "a", [True, np.bool_(False)]) == (True, False)
    assert type(integer("f", "a", np.uint8(7), 7)) is int
    assert pair("f", "a", range(1, 3)) == (1, 2)
    with pytest.raises(ValueError, match="f: a is 6; it must be at least 7"):
        integer("f", "a", 6, 7)
    with pytest.raises(ValueError, match="^a is 6; it must be at least 7"):
        pair("", "a", 6, 7)
