"""torchvision's networks for quantization, whose fuse_model() looks for exact classes."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from helpers.accelerated import randomised
from torch import nn

from resnet_cuda.acceleration import accelerate

quantization = pytest.importorskip("torchvision.models.quantization")


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("nested", [False, True])
def test_fuse_model_finds_every_norm(name, nested):
    make = partial(getattr(quantization, name), weights=None, quantize=False, num_classes=5)
    network = randomised(make()).eval()
    x = torch.randn(1, 3, 32, 32)
    expected = network(x)
    model = nn.Sequential(copy.deepcopy(network)) if nested else copy.deepcopy(network)
    found = accelerate(model)
    assert not found.replaced
    if name == "mobilenet_v2":
        reason = "fuse_model() of the network looks for torchvision.ops.misc.Conv2dNormActivation itself"
        assert set(found.left.values()) == {reason}
    (model[0] if nested else model).fuse_model()
    assert not any(isinstance(it, nn.BatchNorm2d) for it in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)
