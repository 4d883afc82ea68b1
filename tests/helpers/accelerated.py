"""Networks of torchvision and timm before and after accelerate."""

from __future__ import annotations

import pytest
import torch


def randomised(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ranges = {"weight": (0.4, 0.8), "bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3), "running_var": (0.5, 1.5)}
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "running_var", None) is not None:
                for name, (low, high) in ranges.items():
                    getattr(module, name).uniform_(low, high, generator=generator)
    return model


def image(*shape):
    torch.manual_seed(5)
    return torch.randn(*(shape or (2, 3, 64, 96)), dtype=torch.float64)


def timms(name, frozen=False):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=7)
    return timm.layers.freeze_batch_norm_2d(model) if frozen else model


def results(model, x):
    """Output and all gradients."""
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    output = model(x)
    output.square().sum().backward()
    gradients = {name: it.grad for name, it in model.named_parameters() if it.grad is not None}
    return {"output": output.detach(), "input": x.grad, **gradients}
