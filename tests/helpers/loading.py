"""Networks to load from and into, and what a load must or must not have changed."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import narrow_cfg, randomise, torchvision_style
from torch import nn

from resnet_cuda import build_backbone, load_weights

IMAGE = torch.linspace(-1, 1, 2 * 3 * 64 * 96, dtype=torch.float64).reshape(2, 3, 64, 96).sin()


def by_configuration(body: str = "R-50-FPN", **resnets: object) -> nn.Module:
    """Narrow, with the stride in the 3x3 as torchvision has it."""
    options = {"RES2_OUT_CHANNELS": 32, "BACKBONE_OUT_CHANNELS": 16, "STRIDE_IN_1X1": False}
    return build_backbone(narrow_cfg(body, **options | resnets))


def source(kind: str = "torchvision") -> nn.Module:
    """A float64 network with random statistics."""
    network = torchvision_style(dcn=False) if kind == "torchvision" else by_configuration()
    return randomise(network).double().eval()


def assert_same_state(model, expected):
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


def assert_refused(model, weights, message, **options):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_weights(model, weights, **options)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
