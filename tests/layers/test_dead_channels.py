"""Loading statistics that leave a frozen norm nothing to divide by says so; published kinds load silently."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from resnet_cuda.layers import FrozenBatchNorm2d


def state(variance, channels=4):
    variance = torch.tensor(variance, dtype=torch.float32)
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    return {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": variance}


def messages(layer, content, **options):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        layer.load_state_dict(content, **options)
    return [str(warning.message) for warning in seen]


NAN = float("nan")
CASES = {
    "zeros": ([0, 1, 0, 2], 0, "is 0 in 2 of 4 channels, which give their bias"),
    "negative": ([-1, 1, 1, 2], 0, "is negative or NaN in 1 of 4 channels, which give NaN"),
    "negative by eps": ([-1e-5, 1, 1, 2], 1e-6, "is negative or NaN in 1 of 4 channels"),
    "zero by eps": ([-0.5, 1, 1, 2], 0.5, "is 0 in 1 of 4 channels"),
    "NaN": ([NAN, NAN, 1, 2], 1e-5, "is negative or NaN in 2 of 4 channels"),
    "both": ([NAN, 0, 1, -2], 0, "is 0 in 1 of 4 channels, .* and negative or NaN in 2 of 4 channels"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_warning_names_layer_and_number_of_channels(name):
    variance, eps, message = CASES[name]
    network = nn.Sequential(nn.Identity(), nn.Sequential(FrozenBatchNorm2d(4, eps=eps)), FrozenBatchNorm2d(4, eps=eps))
    content = {f"1.0.{key}": value for key, value in state(variance).items()}
    content |= {f"2.{key}": value for key, value in state([1, 1, 1, 1]).items()}
    seen = messages(network, content)
    assert len(seen) == 1
    with pytest.warns(UserWarning, match=rf"FrozenBatchNorm2d: 1\.0\.running_var \+ eps .*{message}"):
        network.load_state_dict(content)
    for options in ({"strict": False}, {"assign": True}):
        assert len(messages(network, content, **options)) == 1


@pytest.mark.parametrize(
    ("variance", "eps"),
    [
        ([1e-45, 5.6e-45, 1e-38, 1], 0),  # torchvision's go down to denormal numbers
        ([1e-45, 5.6e-45, 1e-38, 1], 1e-5),
        ([0, 0, 1, 1], 1e-5),
        ([1, 1, 1, 1], 0),
        ([float("inf"), 1, 1, 1], 0),
    ],
)
def test_healthy_statistics_load_silently(variance, eps):
    assert messages(FrozenBatchNorm2d(4, eps=eps), state(variance)) == []


def test_no_warning_about_what_was_not_loaded():
    layer = FrozenBatchNorm2d(4, eps=0)
    assert messages(layer, {}, strict=False) == []
    with torch.device("meta"):
        meta = FrozenBatchNorm2d(4, eps=0)
    assert messages(meta, meta.state_dict()) == []
    with torch._subclasses.FakeTensorMode():
        fake = FrozenBatchNorm2d(4, eps=0)
        assert messages(fake, fake.state_dict()) == []


def test_torchvisions_kind_of_network_loads_silently():
    models = pytest.importorskip("torchvision.models", reason="loads torchvision's network")
    from resnet_cuda import resnet_fpn_backbone

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resnet_fpn_backbone("resnet18", weights=models.resnet18().state_dict())
