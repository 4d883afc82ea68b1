"""Optimized first, then narrowed to 16 bits: channels whose weights and norms have opposite, extreme scales."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import resnet_cuda
from resnet_cuda.layers import FrozenBatchNorm2d

SCALES = torch.logspace(-12, 6, 32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_norms_are_folded_into_float32_weights_before_these_are_narrowed(dtype, tolerance):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(16, 32, 3, padding=1, bias=False), FrozenBatchNorm2d(32, eps=0)
    with torch.no_grad():
        conv.weight.mul_(SCALES.view(-1, 1, 1, 1))
        norm.running_var.copy_(SCALES.square())
        norm.weight[::3] *= -1
        norm.weight[5] = 0
        norm.bias.normal_()
    model = nn.Sequential(conv, norm, nn.ReLU()).eval()
    images = torch.randn(2, 16, 24, 24)
    with torch.no_grad():
        expected = model.double()(images.double())
        found = resnet_cuda.optimize_for_inference(model.float()).to(dtype)(images.to(dtype)).double()
    error = (found - expected).square().mean((0, 2, 3)).sqrt()
    assert (error < tolerance).all()  # before its bias and ReLU every channel but one has a deviation of about 0.6
