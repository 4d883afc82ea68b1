"""Checks that an optimized copy computes what the model does."""

from __future__ import annotations

import warnings

import torch
from helpers.networks import randomise
from torch import nn

from resnet_cuda import optimize_for_inference


@torch.no_grad()
def check(model: nn.Module, *arguments, left=None):
    """The copy of ``model``, whose results are the same and which leaves exactly the norms named in ``left``."""
    model = randomise(model).eval().double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimized = optimize_for_inference(model)
    found, expected = optimized(*arguments), model(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    if left is not None:
        assert set(optimized.optimization_report.left) == set(left)
    return optimized


def image(channels: int = 3, size: int = 48) -> torch.Tensor:
    return torch.randn(1, channels, size, size, dtype=torch.float64)


def conv_norm(channels: int = 3) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
