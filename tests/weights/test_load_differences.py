"""What two models compute differently with the same tensors is warned of, where modules or keys show it."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from helpers.loading import IMAGE, assert_same_state, by_configuration
from helpers.networks import levels_of, narrow_cfg, narrow_fpn, randomise
from torch import nn

from resnet_cuda import build_backbone, load_weights, resnet_fpn_backbone
from resnet_cuda.layers import FrozenBatchNorm2d
from resnet_cuda.resnet import ResNetHead, StageSpec
from resnet_cuda.weights.convert import convert


def alarms(model, source, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = load_weights(model, source, **options)
    texts = [str(it.message) for it in caught]
    assert all(any(text.endswith(note) for note in report.notes) for text in texts)
    return texts


def group_norm(groups, eps=1e-5):
    return lambda channels: nn.GroupNorm(groups, channels, eps)


@pytest.mark.parametrize(
    ("source", "model", "message"),
    [
        (
            {"norm_layer": group_norm(2)},
            {"norm_layer": group_norm(8)},
            "norms differ: stem.gn is GroupNorm of 2",
        ),
        ({"norm_layer": group_norm(2, 0.1)}, {"norm_layer": group_norm(2)}, "eps 0.1 in the source"),
        (
            {"norm_layer": lambda channels: nn.InstanceNorm2d(channels, affine=True)},
            {"norm_layer": group_norm(2)},
            "is InstanceNorm",
        ),
        (
            {"norm_layer": lambda channels: nn.BatchNorm2d(channels, track_running_stats=False)},
            {"norm_layer": group_norm(2)},
            "BatchNorm2d without statistics",
        ),
        (
            {"replace_stride_with_dilation": (False, False, True)},
            {},
            r"convolutions differ: res5.0.conv2 is|res5.1.conv1 is dilation",
        ),
    ],
)
def test_layers_that_differ(source, model, message):
    found = alarms(narrow_fpn(**model), narrow_fpn(**source))
    assert len(found) == 1
    assert re.search(message, found[0])


def test_equal_models_raise_no_alarm():
    for options in ({}, {"norm_layer": "gn", "fpn_norm_layer": "gn"}, {"norm_layer": "bn"}):
        assert alarms(narrow_fpn(**options), narrow_fpn(**options)) == []


def changed(**parts):
    network = narrow_fpn()
    for name, part in parts.items():
        parent, _, attribute = name.replace("__", ".").rpartition(".")
        setattr(network.body.get_submodule(parent), attribute, part)
    return network


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"layer2__0__relu": nn.LeakyReLU(0.1)},
            r"1 blocks differ: res3.0.conv2 is .* LeakyReLU\(negative_slope=0.1\)",
        ),
        ({"relu": nn.SiLU()}, "1 stems differ: stem.norm is SiLU, MaxPool2d .* and ReLU, MaxPool2d"),
        ({"maxpool": nn.Identity()}, "1 stems differ: stem.norm is ReLU, Identity"),
        ({"maxpool": nn.MaxPool2d(2, 2)}, r"is ReLU, MaxPool2d \(2, 2\) \(2, 2\) \(0, 0\) in the source"),
    ],
)
def test_activations_and_poolings_that_differ(source, message):
    (found,) = alarms(narrow_fpn(), changed(**source))
    assert re.search(message, found)
    assert len(alarms(changed(**source), narrow_fpn())) == 1
    assert alarms(changed(**source), changed(**source)) == []


def test_activations_that_compute_the_same_raise_no_alarm():
    assert alarms(narrow_fpn(), changed(relu=nn.ReLU(inplace=True), maxpool=nn.MaxPool2d((3, 3), 2, 1))) == []


@pytest.mark.parametrize("name", ["relu", "layer2__0__relu"])
def test_parameters_of_activations_are_part_of_the_backbone(name):
    key = f"body.{name.replace('__', '.')}.weight"
    with pytest.raises(ValueError, match=f"missing: {key}"):
        load_weights(changed(**{name: nn.PReLU()}), narrow_fpn())
    with pytest.raises(ValueError, match=f"unexpected: {key}"):
        load_weights(narrow_fpn(), changed(**{name: nn.PReLU()}))
    with pytest.raises(ValueError, match=f"keys that no ResNet has: {key}"):
        convert(changed(**{name: nn.PReLU()}), "mmdetection")
    model = changed(**{name: nn.PReLU(init=0.5)})
    assert alarms(model, changed(**{name: nn.PReLU()})) == []
    assert model.state_dict()[key].item() == 0.25


def test_norms_without_weights_keep_their_function():
    def build(eps):
        return narrow_fpn(norm_layer=lambda channels: nn.BatchNorm2d(channels, eps, affine=False)).double().eval()

    source, model = build(0.1), build(1e-5)
    assert alarms(model, source) == []
    with torch.no_grad():
        for got, expected in zip(levels_of(model(IMAGE)), levels_of(source(IMAGE)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_timms_blocks_with_pooling():
    timm = pytest.importorskip("timm")
    found = alarms(timm.create_model("resnet50"), timm.create_model("resnetaa50"))
    assert any("with a pooling of its own (aa), ReLU in the source" in text for text in found)


def pyramid(use_relu, use_gn=False):
    cfg = narrow_cfg(width=32 if use_gn else 8, BACKBONE_OUT_CHANNELS=32, STRIDE_IN_1X1=False)
    cfg.MODEL.FPN.USE_RELU, cfg.MODEL.FPN.USE_GN = use_relu, use_gn
    return build_backbone(cfg)


@pytest.mark.parametrize("use_gn", [False, True])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_pyramids_with_and_without_relu(here, there, use_gn):
    assert bool(alarms(pyramid(here, use_gn), pyramid(there, use_gn))) == (here != there)
    if not use_gn:  # whose keys are the same
        assert bool(alarms(pyramid(here), pyramid(there).state_dict())) == (here != there)


def test_mmdetections_top_levels_are_warned_of():
    network = by_configuration("R-50-FPN-RETINANET")
    there = convert(network.state_dict(), "mmdetection")
    assert any("relu_before_extra_convs" in note for note in there.notes)
    assert any("relu_before_extra_convs" in text for text in alarms(network, there.content))
    assert alarms(network, network) == []


# What keys leave open


def test_a_head_by_itself_keeps_its_epsilon():
    def build():
        return ResNetHead("BottleneckWithFixedBatchNorm", [StageSpec(4, 2, True)], width_per_group=8)

    head, model = randomise(build()), build()
    for source in (head, head.state_dict()):
        load_weights(model, source)
        assert_same_state(model, head.state_dict())
    assert torch.equal(
        convert(head, "maskrcnn-benchmark").weights["layer4.0.bn1.running_var"],
        head.state_dict()["layer4.0.bn1.running_var"],
    )


def test_the_assumed_epsilon_is_said():
    notes = load_weights(narrow_fpn(), narrow_fpn().state_dict()).notes
    assert any("epsilon 1e-05, that of torchvision" in note for note in notes)
    assert not any("epsilon" in note for note in load_weights(narrow_fpn(), narrow_fpn()).notes)


def test_a_pyramid_alone_begins_at_the_models_level():
    def build():
        return narrow_fpn(returned_layers=[1, 2, 3])

    source, model = randomise(build()), build()
    state = {key: value for key, value in source.state_dict().items() if key.startswith("fpn")}
    load_weights(model, state, strict=False)
    assert_same_state(model.fpn, source.fpn.state_dict())


def test_mmdetections_body_is_known_by_what_is_beside_it():
    state = {f"backbone.{key}": value for key, value in narrow_fpn().body.state_dict().items()}
    state["bbox_head.fc_cls.weight"] = torch.zeros(3, 3)
    report = load_weights(narrow_fpn(), state)
    assert report.format == "mmdetection"
    assert report.ignored == ["bbox_head.fc_cls.weight"]


# Detectors under other prefixes


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = narrow_fpn()
        self.rpn = nn.Conv2d(8, 3, 1)


class Lightning(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Detector()


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = Detector()


@pytest.mark.parametrize("given", [Detector, Lightning, Parallel])
@pytest.mark.parametrize("wanted", [Detector, Lightning, Parallel])
def test_whole_detectors_under_any_prefix(wanted, given):
    source, model = randomise(given()), wanted()
    report = load_weights(model, source.state_dict())
    assert not (report.missing or report.unexpected)
    for got, expected in zip(model.state_dict().values(), source.state_dict().values(), strict=True):
        assert torch.equal(got, expected)


def test_compiled_models_are_filled():
    source, model = randomise(Detector()), Detector()
    load_weights(torch.compile(model), source)
    assert_same_state(model, source.state_dict())


def test_other_parts_of_which_none_fits_are_warned_of():
    source = Detector()
    source.roi = source.rpn
    del source.rpn
    (text,) = alarms(Detector(), source)
    assert "of the parts beside the backbone none was loaded: the model's are rpn" in text


# Models that hide their tensors


def test_a_state_dict_of_copies_is_refused():
    model = narrow_fpn()
    model._register_state_dict_hook(lambda module, state, *_: {key: value.clone() for key, value in state.items()})
    with pytest.raises(ValueError, match="gives copies"):
        load_weights(model, randomise(narrow_fpn()))


def test_values_beyond_the_models_dtype_are_refused():
    state = narrow_fpn(norm_layer="bn").state_dict()
    state["body.bn1.running_var"] = torch.full((8,), 1e5)
    with pytest.raises(ValueError, match=r"beyond the largest float16: body.bn1.running_var"):
        load_weights(narrow_fpn(norm_layer="bn").half(), state)


# Files of other people


def test_a_score_beside_the_weights():
    network, model = randomise(narrow_fpn()), narrow_fpn()
    load_weights(model, {"state_dict": network.state_dict(), "best_acc1": torch.tensor(76.1), "epoch": 3})
    assert_same_state(model, network.state_dict())


def test_classifiers_with_other_heads():
    network = randomise(narrow_fpn()).body
    heads = {"fc.1.weight": torch.zeros(3, 3), "head.weight": torch.zeros(3), "prototypes.weight": torch.zeros(3)}
    report = load_weights(narrow_fpn(), {**network.state_dict(), **heads})
    assert sorted(report.ignored) == sorted(heads)


@pytest.mark.parametrize("key", ["attnpool.k_proj.weight", "bn3.weight", "conv3.weight", "layer5.0.conv1.weight"])
def test_other_networks_are_not_taken_for_resnets(key):
    state = {**narrow_fpn().body.state_dict(), key: torch.zeros(3, 3)}
    with pytest.raises(ValueError, match=f"unexpected: {key}"):
        load_weights(narrow_fpn(), state)


def test_necks_are_ignored_where_the_model_has_none():
    content = convert(narrow_fpn().state_dict(), "mmdetection").content
    content["state_dict"]["neck.downsample_convs.0.conv.weight"] = torch.zeros(8, 8, 3, 3)
    content["state_dict"]["roi_head.semantic_head.lateral_convs.0.conv.weight"] = torch.zeros(8, 8, 1, 1)
    report = load_weights(narrow_fpn().body, content)
    assert "neck.downsample_convs.0.conv.weight" in report.ignored
    with pytest.raises(ValueError, match="unexpected: neck.downsample_convs"):
        load_weights(narrow_fpn(), content)


def test_c4_detectors_whose_heads_share_a_stage():
    head = randomise(ResNetHead("BottleneckWithFixedBatchNorm", [StageSpec(4, 3, True)], width_per_group=8))
    body = randomise(build_backbone(narrow_cfg("R-50-C4")))
    state = {f"backbone.{key}": value for key, value in body.state_dict().items()}
    for part in ("box", "mask"):
        state |= {f"roi_heads.{part}.feature_extractor.head.{key}": value for key, value in head.state_dict().items()}
    model = ResNetHead("BottleneckWithFixedBatchNorm", [StageSpec(4, 3, True)], width_per_group=8)
    report = load_weights(model, {"model": state})
    assert_same_state(model, head.state_dict())
    assert sum("roi_heads.mask" in key for key in report.ignored) == len(head.state_dict())
    state["roi_heads.mask.feature_extractor.head.layer4.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    with pytest.raises(ValueError, match=r"are both head.res5.0.conv1.weight"):
        load_weights(model, {"model": state})


def test_detectron2s_converted_classifier():
    network = randomise(narrow_fpn()).body
    state = convert(network.state_dict(), "detectron2").weights
    report = load_weights(narrow_fpn(), {**state, "stem.fc.weight": torch.zeros(3, 3), "stem.fc.bias": torch.zeros(3)})
    assert report.ignored == ["stem.fc.weight", "stem.fc.bias"]


def test_constants_of_a_convert_are_checked():
    state = randomise(narrow_fpn()).state_dict()
    for eps in (-1, float("nan"), True, "x"):
        with pytest.raises(ValueError, match="convert: eps is"):
            convert(state, "maskrcnn-benchmark", eps=eps)
    for value, message in ((float("nan"), "NaN or infinite"), (-1.0, "negative variances")):
        with pytest.raises(ValueError, match=f"body.bn1.running_var has {message}"):
            convert({**state, "body.bn1.running_var": torch.full((8,), value)}, "caffe2")


def test_layers_of_another_library_are_compensated_too():
    class ModulatedDeformConv2dPack(nn.Conv2d):
        """mmcv's, whose offsets' convolution is within."""

        def __init__(self):
            super().__init__(8, 8, 3, bias=False)
            self.conv_offset = nn.Conv2d(8, 27, 3)

    model = resnet_fpn_backbone("resnet18", width=8, fpn_channels=8, norm_layer=FrozenBatchNorm2d)
    layer = model.body.layer1[0].conv2 = ModulatedDeformConv2dPack()
    nn.init.zeros_(layer.conv_offset.weight)
    nn.init.zeros_(layer.conv_offset.bias)
    detector = nn.Module()
    detector.backbone, detector.neck = model.body, nn.Identity()
    source = randomise(narrow_fpn())
    load_weights(detector, source.body)
    torch.testing.assert_close(layer.weight, 2 * source.body.layer1[0].conv2.weight)


def test_heads_with_stages_of_their_own_are_all_filled():
    def head():
        return ResNetHead("BottleneckWithFixedBatchNorm", [StageSpec(4, 3, True)], width_per_group=8)

    model = nn.Module()
    model.box, model.mask = head(), head()
    source = randomise(head())
    report = load_weights(model, source)
    assert_same_state(model.box, source.state_dict())
    assert_same_state(model.mask, source.state_dict())
    assert len(report.loaded) == len(model.state_dict())


def test_a_file_for_another_classifier_raises_no_alarm_in_a_detector():
    state = {f"backbone.{key}": value for key, value in narrow_fpn().body.state_dict().items()}
    assert alarms(Detector(), {**state, "head.fc.weight": torch.zeros(3, 3)}) == []


def test_input_statistics_of_two_models_are_compared():
    detection = pytest.importorskip("torchvision.models.detection")

    def build(mean):
        return detection.FasterRCNN(narrow_fpn(), 3, image_mean=mean)

    assert alarms(build([0.5] * 3), build([0.5] * 3)) == []
    assert any("normalises its input" in text for text in alarms(build([0.5] * 3), build([0.4] * 3)))


def test_what_is_within_the_body_is_not_the_pyramids():
    state = convert(narrow_fpn().state_dict(), "detectron2", layout="detector").weights
    state["backbone.bottom_up.res2.0.attn.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"unexpected: backbone.bottom_up.res2.0.attn.weight"):
        load_weights(narrow_fpn().body, state)


def test_bottlenecks_may_stride_in_the_1x1():
    options = {"width": 8, "fpn_channels": 16}
    source = randomise(by_configuration(STRIDE_IN_1X1=True)).double().eval()
    model = resnet_fpn_backbone("resnet50", stride_in_1x1=True, **options).double().eval()
    assert alarms(model, source.state_dict()) == []
    with torch.no_grad():
        for got, expected in zip(levels_of(model(IMAGE)), levels_of(source(IMAGE)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    other = resnet_fpn_backbone("resnet50", **options)
    assert any("mostly stride in the first 1x1" in text for text in alarms(other, source.state_dict()))
    assert any("those of the weights in the first 1x1" in text for text in alarms(other, source))
