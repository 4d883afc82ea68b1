"""timm's networks in ours and back, level by level."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import randomise
from torch import nn

from resnet_cuda import load_weights, resnet_fpn_backbone
from resnet_cuda.weights import files
from resnet_cuda.weights.convert import convert

timm = pytest.importorskip("timm", reason="loads timm's networks")
IMAGE = torch.linspace(-1, 1, 3 * 64 * 96, dtype=torch.float64).reshape(1, 3, 64, 96).sin()


def whole(name: str) -> nn.Module:
    return randomise(timm.create_model(name)).double().eval()


def levels(network: nn.Module) -> list[torch.Tensor]:
    return network.forward_intermediates(IMAGE, indices=[1, 2, 3, 4], intermediates_only=True)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet34d", "resnet50d", "resnext50_32x4d"])
def test_timms_weights(name, tmp_path):
    theirs, ours = whole(name), resnet_fpn_backbone(name).double().eval()
    files.write(theirs.state_dict(), tmp_path / "model.safetensors", "safetensors")
    report = load_weights(ours, tmp_path / "model.safetensors")
    assert not report.unexpected
    assert all(key.startswith("fpn.") for key in report.missing)
    assert all(key.startswith("fc.") or key.endswith("num_batches_tracked") for key in report.ignored)
    with torch.no_grad():
        for got, expected in zip(ours.body(IMAGE).values(), levels(theirs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet18", "resnet50d"])
def test_into_timms_networks(name):
    ours = randomise(resnet_fpn_backbone(name)).double().eval()
    weights = convert(ours.body, "timm").weights
    for theirs in (whole(name), timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).double().eval()):
        report = load_weights(theirs, weights)
        assert set(report.missing) <= {"fc.weight", "fc.bias"}
        with torch.no_grad():
            found = theirs(IMAGE) if hasattr(theirs, "feature_info") and not hasattr(theirs, "fc") else levels(theirs)
            for got, expected in zip(found, ours.body(IMAGE).values(), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
