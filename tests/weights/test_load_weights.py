"""load_weights: every format into every kind of model, wrappers, round trips."""

from __future__ import annotations

import re

import pytest
import torch
from helpers.loading import IMAGE, assert_same_state, by_configuration, source
from helpers.networks import (
    cfg_built,
    levels_of,
    narrow_cfg,
    narrow_fpn,
    one_process_group,
    randomise,
    torchvision_style,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel

from resnet_cuda import load_weights, resnet_fpn_backbone
from resnet_cuda.resnet import ResNet, ResNetHead, StageSpec
from resnet_cuda.weights.convert import TARGETS, convert
from resnet_cuda.weights.formats import FORMATS


class Detector(nn.Module):
    """A backbone in a detector that also has other parts."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.rpn = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        return self.backbone(x)


KINDS = {
    "by configuration": by_configuration,
    "torchvision's function": lambda: torchvision_style(dcn=False),
    "within a detector": lambda: Detector(torchvision_style(dcn=False)),
    "compiled and wrapped": lambda: nn.Sequential(by_configuration()),
}


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("origin", ["torchvision", "maskrcnn-benchmark"])
def test_every_format_into_every_kind_of_model(origin, kind, to, backend):
    network = source(origin)
    model = KINDS[kind]().double().eval()
    report = load_weights(model, convert(network, to).content)
    assert report.format == to
    assert not report.unexpected
    assert len(report.loaded) + len(report.missing) == len(model.state_dict())
    assert all("rpn" in key for key in report.missing)
    with torch.no_grad():
        for got, expected in zip(levels_of(model(IMAGE)), levels_of(network(IMAGE)), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("to", TARGETS)
def test_every_format_into_bodies_and_heads(to):
    """A classifier's last stage is that of a C4 detector's head."""
    network = source().body
    whole = ResNet(narrow_cfg("R-50-C5", RES2_OUT_CHANNELS=32, STRIDE_IN_1X1=False)).double().eval()
    body = by_configuration("R-50-C4").double().eval()
    head = ResNetHead(
        "BottleneckWithFixedBatchNorm",
        [StageSpec(4, 3, True)],
        width_per_group=8,
        res2_out_channels=32,
        stride_in_1x1=False,
    ).double()
    content = convert(network, to).content
    ignored = {
        name: len(load_weights(model, content).ignored)
        for name, model in {"whole": whole, "body": body, "head": head}.items()
    }
    assert ignored["whole"] == 0
    assert ignored["body"] > 0
    assert ignored["head"] > ignored["body"]
    with torch.no_grad():
        expected = network(IMAGE)
        torch.testing.assert_close(whole(IMAGE)[0], expected["3"], rtol=1e-10, atol=1e-10)
        (c4,) = body(IMAGE)
        torch.testing.assert_close(c4, expected["2"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(head(c4), expected["3"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["plain", "deformable", "v1", "bn", "gn", "r18", "cfg", "cfg-dcn", "v1d", "retinanet"])
def test_round_trips_are_exact(name, to):
    networks = {
        "plain": lambda: torchvision_style(dcn=False),
        "deformable": torchvision_style,
        "v1": lambda: narrow_fpn(dcn_stages=(False, True, False, True), modulated=False, deformable_groups=2),
        "bn": lambda: torchvision_style(dcn=False, norm="bn"),
        "gn": lambda: narrow_fpn(norm_layer="gn", fpn_norm_layer="gn"),
        "r18": narrow_fpn,
        "cfg": lambda: cfg_built(dcn=False),
        "cfg-dcn": cfg_built,
        "v1d": lambda: resnet_fpn_backbone("resnet50d", width=16, fpn_channels=8),
        "retinanet": lambda: by_configuration("R-50-FPN-RETINANET"),
    }
    network = randomise(networks[name]())
    own = "maskrcnn-benchmark" if name in ("cfg", "cfg-dcn", "retinanet") else "torchvision"
    state = network.state_dict()
    has_no_name = {("deformable", "caffe2"), ("v1", "caffe2"), ("cfg-dcn", "caffe2")} | {
        ("v1d", it) for it in ("maskrcnn-benchmark", "detectron2", "caffe2")
    }
    if (name, to) in has_no_name:
        with pytest.raises(ValueError, match=f"{to} has no names for"):
            convert(state, to)
        return
    back = convert(convert(state, to).content, own, layout="backbone").weights
    if to == "caffe2" and name != "gn":  # which folds the statistics: the same function, not the same tensors
        model = networks[name]().double().eval()
        load_weights(model, back)
        with torch.no_grad():
            expected = network.double().eval()(IMAGE)
            for got, level in zip(levels_of(model(IMAGE)), levels_of(expected), strict=True):
                torch.testing.assert_close(got, level, rtol=1e-4, atol=1e-4 * float(level.abs().max()))
        return
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].dtype == value.dtype, key
        assert torch.equal(back[key], value), key


WRAPPERS = {
    "flat": lambda state: state,
    "model": lambda state: {"model": state, "optimizer": {"state": {}}, "scheduler": {}, "iteration": 5},
    "state_dict": lambda state: {"state_dict": state, "meta": {"epoch": 3, "CLASSES": ("a",)}},
    "state_dict_ema": lambda state: {"state_dict_ema": state},
    "blobs": lambda state: {"blobs": state, "cfg": "text"},
    "blobs of arrays": lambda state: {"blobs": {key: value.numpy() for key, value in state.items()}},
    "nested": lambda state: {"model": {"state_dict": state}},
    "DDP": lambda state: {"module." + key: value for key, value in state.items()},
    "torch.compile": lambda state: {"_orig_mod." + key: value for key, value in state.items()},
    "backbone.": lambda state: {"backbone." + key: value for key, value in state.items()},
    "with its author": lambda state: {"model": {**state}, "__author__": "me", "matching_heuristics": True},
    "deep": lambda state: {"model": {"module.student.net." + key: value for key, value in state.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_opened(wrapper):
    network, model = randomise(narrow_fpn()), narrow_fpn()
    load_weights(model, WRAPPERS[wrapper](dict(network.state_dict())))
    assert_same_state(model, network.state_dict())


def test_of_an_average_and_the_weights_the_weights_are_taken_and_the_report_says_so():
    network, model = randomise(narrow_fpn()), narrow_fpn()
    average = {key: value * 0 for key, value in network.state_dict().items()}
    report = load_weights(model, {"state_dict_ema": average, "state_dict": network.state_dict()})
    assert_same_state(model, network.state_dict())
    assert any("state_dict_ema" in note for note in report.notes)


@pytest.mark.parametrize("make", [narrow_fpn, lambda: Detector(narrow_fpn())], ids=["backbone", "detector"])
def test_torchs_average_of_the_weights_is_a_source_and_a_target(make):
    network, model = randomise(make()), make()
    average = AveragedModel(network, use_buffers=True)
    for given in (average.state_dict(), average, {"ema": average.state_dict()}):
        report = load_weights(model, given)
        assert report.ignored == ["n_averaged"]
        assert_same_state(model, network.state_dict())
    report = load_weights(AveragedModel(model), given)
    assert report.missing == report.unexpected == []


def test_of_two_networks_in_one_file_the_report_says_which_was_taken():
    network, model = randomise(narrow_fpn()), narrow_fpn()
    state = network.state_dict()
    others = {key: value * 0 for key, value in state.items()}
    report = load_weights(model, {"model": others, "state_dict": state, "net": {"depth": 18}})
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [it for it in report.notes if "taken" in it] == [
        "the file has other tensors, too: model; state_dict was taken"
    ]


def test_ddp_models_are_filled(tmp_path):
    network = randomise(narrow_fpn())
    with one_process_group(tmp_path):
        model = nn.parallel.DistributedDataParallel(narrow_fpn())
        load_weights(model, network)
        assert_same_state(model.module, network.state_dict())


def test_the_report_is_a_short_table():
    network = randomise(narrow_fpn())
    report = load_weights(narrow_fpn(dcn_stages=(False, False, True, True)), network)
    lines = str(report).splitlines()
    assert lines[0] == "state dict of a BackboneWithFPN (torchvision)"
    assert re.match(r"  loaded      116  body\.layer\d \d+, ", lines[1])
    assert len(lines) < 12
    assert all(len(line) < 260 for line in lines)
    assert report.missing_keys is report.missing
