"""Plain weights in deformable stages, and deformable ones."""

from __future__ import annotations

import pytest
import torch
from helpers.loading import IMAGE, assert_refused, source
from helpers.networks import (
    levels_of,
    narrow_fpn,
    randomise,
)

from resnet_cuda import load_weights, resnet_fpn_backbone
from resnet_cuda.layers import DFConv2d


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_plain_weights_in_deformable_stages_give_the_plain_network(modulated, dtype):
    network = source().to(dtype)
    model = resnet_fpn_backbone(
        "resnet50", width=8, fpn_channels=16, dcn_stages=(False, True, True, True), modulated=modulated
    )
    model = model.to(dtype).eval()
    report = load_weights(model, network)
    layers = [layer for layer in model.modules() if isinstance(layer, DFConv2d)]
    assert len(layers) == 13
    assert all(not layer.offset.weight.any() and not layer.offset.bias.any() for layer in layers)
    assert len(report.missing) == 2 * 13
    assert all(".offset." in key for key in report.missing)
    assert any("13 deformable layers" in note for note in report.notes)
    assert any("doubled" in note for note in report.notes) == modulated
    with torch.no_grad():
        for got, expected in zip(levels_of(model(IMAGE.to(dtype))), levels_of(network(IMAGE.to(dtype))), strict=True):
            tolerance = 1e-10 if dtype == torch.float64 else 1e-3
            torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_the_report_says_that_missing_offsets_are_new():
    network, dcn = narrow_fpn(), narrow_fpn(dcn_stages=(False, False, True, True))
    report = load_weights(dcn, network)
    assert report.new_offsets == report.missing
    assert "missing       8  body.layer3 4, body.layer4 4 (all of offset layers, which a plain" in str(report)
    report = load_weights(dcn, network.body)
    missing = len(report.missing)
    assert missing == 8 + len(network.fpn.state_dict())
    assert f"missing      {missing}  " in str(report)
    assert "(8 of them of offset layers, which a plain network does not have)\n" in str(report)
    assert "offset layers" not in str(load_weights(dcn, dcn.state_dict()))


def test_the_mask_need_not_be_compensated():
    network, dcn = randomise(narrow_fpn()), narrow_fpn(dcn_stages=(True, False, False, False))
    report = load_weights(dcn, network, compensate_mask=False)
    key = "body.layer1.0.conv2.conv.weight"
    assert torch.equal(dcn.state_dict()[key], network.state_dict()["body.layer1.0.conv2.weight"])
    assert not any("doubled" in note for note in report.notes)


def test_offsets_that_were_trained_are_not_doubled_for():
    network, dcn = randomise(narrow_fpn()), randomise(narrow_fpn(dcn_stages=(True, False, False, False)))
    load_weights(dcn, network)
    key = "body.layer1.0.conv2.conv.weight"
    assert torch.equal(dcn.state_dict()[key], network.state_dict()["body.layer1.0.conv2.weight"])


def test_deformable_weights_do_not_fit_a_plain_network():
    dcn = narrow_fpn(dcn_stages=(False, False, False, True))
    assert_refused(narrow_fpn(), dcn.state_dict(), r"unexpected: body.layer4.0.conv2.offset.weight")


def test_offsets_of_one_layer_must_not_be_missing():
    dcn = randomise(narrow_fpn(dcn_stages=(False, False, False, True)))
    state = dict(dcn.state_dict())
    del state["body.layer4.0.conv2.offset.bias"]
    assert_refused(
        narrow_fpn(dcn_stages=(False, False, False, True)), state, "missing: body.layer4.0.conv2.offset.bias"
    )
