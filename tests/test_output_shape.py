"""What a backbone says of its levels is what its forward gives."""

from __future__ import annotations

import pytest
import torch
from helpers.levels import check_levels
from helpers.networks import levels_of, narrow_cfg, narrow_fpn
from torch import nn

from resnet_cuda import backbones, build_backbone, resnet, resnet_fpn_backbone
from resnet_cuda.fpn import LastLevelMaxPool, LastLevelP6P7
from resnet_cuda.output_shape import ShapeSpec
from resnet_cuda.torchvision_backbone import BackboneWithFPN


@pytest.mark.parametrize(
    ("body", "names", "strides"),
    [
        ("R-50-C4", ["res4"], [16]),
        ("R-50-C5", ["res5"], [32]),
        ("R-50-DC5", ["res5"], [16]),
        ("R-50-FPN", ["p2", "p3", "p4", "p5", "p6"], [4, 8, 16, 32, 64]),
        ("R-50-FPN-RETINANET", ["p3", "p4", "p5", "p6", "p7"], [8, 16, 32, 64, 128]),
    ],
)
@pytest.mark.parametrize("use_c5", [True, False])
def test_of_a_configurations_backbone(body, names, strides, use_c5):
    cfg = narrow_cfg(body, BACKBONE_OUT_CHANNELS=8)
    cfg.MODEL.RETINANET.USE_C5 = use_c5
    network = build_backbone(cfg)
    check_levels(network, names, strides=strides)
    assert network.out_channels == network.output_shape()[names[0]].channels
    assert isinstance(network, nn.Sequential)


def test_of_a_configurations_body():
    check_levels(resnet.ResNet(narrow_cfg("R-50-FPN")), ["res2", "res3", "res4", "res5"], strides=[4, 8, 16, 32])


@pytest.mark.parametrize("returned", [[1], [4], [2, 3], [1, 3, 4], [1, 2, 3, 4]])
def test_of_any_returned_layers(returned):
    network = narrow_fpn(returned_layers=returned)
    names = [str(index) for index in range(len(returned))]
    strides = [2 * 2**layer for layer in returned]
    check_levels(network, [*names, "pool"], strides=[*strides, 2 * strides[-1]])
    assert network.out_channels == 8
    check_levels(network.body, names, strides=strides)


STAGES = {
    "two stages": ([(1, 1, True), (2, 2, True)], [4, 8]),
    "one returned of three": ([(1, 1, False), (2, 1, True), (3, 1, False)], [8]),
    "dilated twice": ([(1, 1, False), (2, 1, True), (3, 2, True, 2), (4, 2, True, 4)], [8, 8, 8]),
    "dilated, then strided": ([(1, 1, True), (2, 2, True, 2), (3, 1, True, 1)], [4, 4, 8]),
}


@pytest.mark.parametrize("name", STAGES)
def test_of_stages_of_the_users(name, monkeypatch):
    rows, strides = STAGES[name]
    specs = [(resnet.StageSpec if len(row) == 3 else resnet.DilatedStageSpec)(*row) for row in rows]
    monkeypatch.setitem(resnet._STAGE_SPECS, "mine", specs)
    monkeypatch.setitem(backbones.BACKBONES, "mine", backbones.build_resnet_fpn_backbone)
    cfg = narrow_cfg("mine", BACKBONE_OUT_CHANNELS=8)
    cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT = 0
    numbers = [row[0] + 1 for row in rows if row[2]]
    check_levels(resnet.ResNet(cfg), [f"res{number}" for number in numbers], strides=strides)
    names = [f"p{number}" for number in [*numbers, numbers[-1] + 1]]
    check_levels(build_backbone(cfg), names, strides=[*strides, 2 * strides[-1]])


def test_retinanets_pyramid_over_a_body_without_c2(monkeypatch):
    specs = [resnet.StageSpec(index, 1, index > 1) for index in (1, 2, 3)]
    monkeypatch.setitem(resnet._STAGE_SPECS, "mine", specs)
    monkeypatch.setitem(backbones.BACKBONES, "mine", backbones.build_resnet_fpn_p3p7_backbone)
    network = build_backbone(narrow_cfg("mine", BACKBONE_OUT_CHANNELS=8))
    check_levels(network, ["p3", "p4", "p5", "p6"], strides=[8, 16, 32, 64])


class Stem(resnet.BaseStem):
    """Without pooling."""

    def __init__(self, cfg):
        super().__init__(cfg, nn.BatchNorm2d)

    def forward(self, x):
        return self.bn1(self.conv1(x)).relu()


class Patches(nn.Module):
    stride = 8

    def __init__(self, cfg):
        super().__init__()
        self.conv = nn.Conv2d(3, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS, 7, 8, 3)

    def forward(self, x):
        if x.is_meta:
            raise RuntimeError("measured, although it says its stride")
        return self.conv(x)


@pytest.mark.parametrize(("stem", "stride"), [(Stem, 2), (Patches, 8)])
def test_a_stem_of_the_users_is_measured_or_asked(stem, stride, monkeypatch):
    monkeypatch.setitem(resnet._STEM_MODULES, "mine", stem)
    body = resnet.ResNet(narrow_cfg("R-50-C4", STEM_FUNC="mine"))
    calls = []
    body.stem.register_forward_hook(lambda *arguments: calls.append(arguments))
    state = {key: value.clone() for key, value in body.state_dict().items()}
    assert body.output_shape() == {"res4": ShapeSpec(channels=64, stride=4 * stride)}
    assert not calls
    assert all(torch.equal(value, state[key]) for key, value in body.state_dict().items())
    check_levels(body, ["res4"], strides=[4 * stride])


class Halved(nn.Module):
    def forward(self, x):
        return x[..., ::2, ::2]


STEMS = {
    "no pooling": (lambda body: setattr(body, "maxpool", nn.Identity()), 2),
    "for small images": (lambda body: setattr(body, "conv1", nn.Conv2d(3, 8, 3, 1, 1)), 2),
    "neither": (lambda body: [setattr(body, "conv1", nn.Conv2d(3, 8, 3, 1, 1)), setattr(body, "maxpool", Halved())], 2),
    "another pooling": (lambda body: setattr(body, "maxpool", nn.MaxPool2d(3, 4, 1)), 8),
    "an activation": (lambda body: setattr(body, "relu", nn.SiLU()), 4),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", STEMS)
def test_a_body_whose_stem_was_changed_is_measured(name, deep):
    change, stride = STEMS[name]
    network = narrow_fpn(deep_stem=deep)
    change(network.body)
    names = ["0", "1", "2", "3"]
    check_levels(network.body, names, strides=[stride, 2 * stride, 4 * stride, 8 * stride])
    check_levels(network, [*names, "pool"])


class TwoMore(nn.Module):
    """A user's levels, for either pyramid: one of the last stage's output, one a quarter of the last level."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 3, 2, 1)

    def forward(self, results, inputs=None, names=None):
        if names is None:
            return [self.conv(results), results[:, :, ::4, ::4]]
        results.append(self.conv(inputs[-1]))
        results.append(results[0][:, :, ::32, ::32])
        names.extend(["tenth", "far"])
        return results, names


def test_extra_blocks_of_the_users_are_measured():
    network = narrow_fpn(returned_layers=[2, 4], extra_blocks=TwoMore(64))
    check_levels(network, ["0", "1", "tenth", "far"], strides=[8, 32, 64, 256])
    assert network.feature_info.channels() == [8, 8, 3, 8]
    modules = ["fpn.layer_blocks.0", "fpn.layer_blocks.1", "fpn.extra_blocks", "fpn.extra_blocks"]
    assert network.feature_info.module_name() == modules


class Shrinks(nn.Module):
    """Changes a level that it is given."""

    def forward(self, results, inputs, names):
        return [results[0][:, :5, ::2, ::2], *results[1:]], names


def test_extra_blocks_of_the_users_may_change_levels():
    network = narrow_fpn(extra_blocks=Shrinks())
    check_levels(network, ["0", "1", "2", "3"], strides=[8, 8, 16, 32])
    assert network.feature_info.channels() == [5, 8, 8, 8]
    assert network.feature_info.module_name(0) == "fpn.extra_blocks"


def test_blocks_of_the_users_on_top_are_measured(monkeypatch):
    monkeypatch.setattr(backbones, "LastLevelMaxPool", lambda: TwoMore(8))
    network = build_backbone(narrow_cfg(BACKBONE_OUT_CHANNELS=8))
    check_levels(network, ["p2", "p3", "p4", "p5", "p6", "p7"], strides=[4, 8, 16, 32, 64, 128])


@pytest.mark.parametrize("kind", ["LastLevelP6P7", "LastLevelMaxPool"])
@pytest.mark.parametrize("channels", [8, 64])
def test_torchvisions_extra_blocks(kind, channels):
    pyramids = pytest.importorskip("torchvision.ops.feature_pyramid_network")
    extra = getattr(pyramids, kind)(*([channels, 8] if kind == "LastLevelP6P7" else []))
    more = ["p6", "p7"] if kind == "LastLevelP6P7" else ["pool"]
    check_levels(narrow_fpn(extra_blocks=extra), ["0", "1", "2", "3", *more])


def test_our_extra_blocks_and_none():
    check_levels(narrow_fpn(extra_blocks=LastLevelP6P7(64, 8)), ["0", "1", "2", "3", "p6", "p7"])
    check_levels(narrow_fpn(extra_blocks=LastLevelMaxPool()), ["0", "1", "2", "3", "pool"])
    network = narrow_fpn()
    network.fpn.extra_blocks = None
    check_levels(network, ["0", "1", "2", "3"])


def test_extra_blocks_that_cannot_be_measured_are_named():
    class Bad(nn.Module):
        def forward(self, results, inputs, names):
            return results, [*names, str(float(results[0].sum()))]

    with pytest.raises(ValueError, match=r"fpn.extra_blocks is a Bad, whose levels cannot be measured on the meta"):
        narrow_fpn(extra_blocks=Bad()).output_shape()


def test_a_foreign_body_is_named():
    network = BackboneWithFPN(nn.Identity(), narrow_fpn().fpn, 8)
    with pytest.raises(ValueError, match="body is a Identity; to know its levels it must be a HasOutputShape"):
        network.output_shape()


SIZES = [(1, 1), (1, 2), (2, 1), (3, 1), (5, 7), (33, 31), (1, 129), (63, 65)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("top", ["pool", "p6p7 of C5", "p6p7 of P5"])
@pytest.mark.parametrize("style", ["torchvision", "configuration"])
def test_any_image_size_works(size, top, style, backend):
    """Down to one pixel; a level of stride s has ceil(size / s) rows."""
    dcn = (False, False, True, True)
    if style == "torchvision":
        extra = {"pool": None, "p6p7 of C5": LastLevelP6P7(64, 8), "p6p7 of P5": LastLevelP6P7(8, 8)}[top]
        network = narrow_fpn(extra_blocks=extra, dcn_stages=dcn, trainable_layers=5)
    else:
        body = "R-50-FPN" if top == "pool" else "R-50-FPN-RETINANET"
        cfg = narrow_cfg(body, BACKBONE_OUT_CHANNELS=8, STAGE_WITH_DCN=dcn)
        cfg.MODEL.RETINANET.USE_C5 = top == "p6p7 of C5"
        network = build_backbone(cfg)
    x = torch.randn(1, 3, *size, requires_grad=True)
    levels = levels_of(network.eval()(x))
    for level, shape in zip(levels, network.output_shape().values(), strict=True):
        assert level.shape == (1, shape.channels, *[-(-it // shape.stride) for it in size])
        assert level.isfinite().all()
    sum(level.square().sum() for level in levels).backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_feature_info_is_timms():
    """The same answers as timm's own class for the same dictionaries."""
    features = pytest.importorskip("timm.models._features", reason="compares with timm")
    ours = resnet_fpn_backbone("resnet18", width=8, fpn_channels=4).feature_info
    theirs = features.FeatureInfo(ours.get_dicts(), ours.out_indices)
    for one, other in ((ours, theirs), (ours.from_other((1, 3)), theirs.from_other((1, 3))), (ours.from_other(2),) * 2):
        assert len(one) == len(other) == 5
        assert one.info == other.info
        assert one.out_indices == other.out_indices
        assert one[2] == other[2]
        for idx in (None, 1, [0, 2], (3,)):
            assert one.channels(idx) == other.channels(idx)
            assert one.reduction(idx) == other.reduction(idx)
            assert one.module_name(idx) == other.module_name(idx)
            assert one.get_dicts(idx=idx) == other.get_dicts(idx=idx)
            assert one.get_dicts(["module"], idx) == other.get_dicts(["module"], idx)
    assert ours.from_other(2).reduction() == theirs.from_other(2).reduction() == [32, 64]


@pytest.mark.parametrize("returned", [[1, 2, 3, 4], [2, 4]])
def test_a_body_says_the_same_as_timms(returned):
    timm = pytest.importorskip("timm", reason="compares with timm")
    theirs = timm.create_model("resnet50", features_only=True, out_indices=returned).feature_info
    with torch.device("meta"):
        ours = resnet_fpn_backbone("resnet50", returned_layers=returned).body.feature_info
    assert ours.channels() == theirs.channels()
    assert ours.reduction() == theirs.reduction()
    assert ours.module_name() == theirs.module_name()
