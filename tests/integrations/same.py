"""Whether two networks compute the same: every output, and every gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def randomise(network: nn.Module, seed: int = 1) -> nn.Module:
    """Norms with statistics and weights that are none of 0 and 1, keeping activations near 1; offsets that move."""
    generator = torch.Generator().manual_seed(seed)

    def fill(tensor: Tensor | None, low: float, high: float) -> None:
        if tensor is not None:
            tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator, dtype=torch.float64))

    with torch.no_grad():
        for name, module in network.named_modules():
            is_offset = name.rsplit(".", 1)[-1] in ("offset", "conv2_offset", "conv_offset")
            if hasattr(module, "running_var") or isinstance(module, nn.GroupNorm):
                fill(module.weight, 0.4, 0.8)
                fill(module.bias, -0.3, 0.3)
                fill(getattr(module, "running_mean", None), -0.3, 0.3)
                fill(getattr(module, "running_var", None), 0.5, 1.5)
            elif is_offset:
                fill(module.weight, -0.1, 0.1)
                fill(module.bias, -1.5, 1.5)
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                fill(module.bias, -0.3, 0.3)
    return network


def tensors_of(outputs: Any) -> dict[str, Tensor]:
    """A list, tuple or mapping of tensors, by name."""
    items = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
    return {str(name): value for name, value in items}


def assert_near(got: Tensor, expected: Tensor, name: str, tolerance: float) -> None:
    """Checks shape, dtype and values up to ``tolerance`` times the largest; an ``expected`` of zeros proves nothing."""
    assert got.shape == expected.shape, f"{name} has shape {tuple(got.shape)}, not {tuple(expected.shape)}"
    assert got.dtype == expected.dtype, f"{name} is {got.dtype}, not {expected.dtype}"
    largest = expected.detach().abs().max().item()
    assert 0 < largest < float("inf"), f"{name} is up to {largest}: nothing would be compared"
    off_by = (got.detach() - expected.detach()).abs().max().item()
    assert off_by <= tolerance * largest, f"{name} is off by {off_by:.3g}, values up to {largest:.3g}"


def assert_same(ours: nn.Module, theirs: nn.Module, x: Tensor, tolerance: float = 1e-9) -> None:
    """Checks every output of ``network(x)`` and the gradients of x and of every parameter, and which have one."""
    results = []
    for network in (ours, theirs):
        network.zero_grad(set_to_none=True)
        image = x.clone().requires_grad_()
        outputs = tensors_of(network(image))
        torch.manual_seed(3)
        sum((output * torch.randn_like(output)).sum() for output in outputs.values()).backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        results.append((outputs, {**gradients, "input": image.grad}))
    (outputs, gradients), (expected_outputs, expected_gradients) = results
    assert list(outputs) == list(expected_outputs)
    for name, expected in expected_outputs.items():
        assert_near(outputs[name], expected, f"output {name}", tolerance)
    assert gradients.keys() == expected_gradients.keys()
    for name, expected in expected_gradients.items():
        assert (gradients[name] is None) == (expected is None), f"the gradient of {name} is there for only one"
        if expected is not None:
            assert_near(gradients[name], expected, f"gradient of {name}", tolerance)
