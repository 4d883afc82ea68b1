"""What a backbone says of its levels, held against its forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from helpers.networks import levels_of
from torch import nn

# Odd, and larger than the largest stride: ceil(size / stride) tells all strides apart.
HEIGHT, WIDTH = 257, 390


def check_levels(network: nn.Module, names: list[str], in_channels: int = 3, strides: Sequence[int] | None = None):
    """Every answer against the forward's result and against the modules that it names."""
    seen = {}

    def keep(name):
        def hook(module, arguments, output):
            seen[name] = output

        return hook

    info = network.feature_info
    for level, name in zip(info, info.module_name(), strict=True):
        network.get_submodule(name).register_forward_hook(keep(level["name"]))
    output = network.eval()(torch.randn(1, in_channels, HEIGHT, WIDTH))
    levels = levels_of(output)
    shapes = network.output_shape()
    assert list(shapes) == names
    if isinstance(output, dict):
        assert list(output) == names
    assert len(levels) == len(names)
    for name, level in zip(names, levels, strict=True):
        stride = shapes[name].stride
        assert level.shape[1:] == (shapes[name].channels, -(-HEIGHT // stride), -(-WIDTH // stride)), name
        assert shapes[name].height is None
        assert shapes[name].width is None
        if isinstance(seen[name], torch.Tensor):
            assert torch.equal(seen[name], level)
    if strides is not None:
        assert [shapes[name].stride for name in names] == strides
    assert info.channels() == [it.channels for it in shapes.values()]
    assert info.reduction() == [it.stride for it in shapes.values()]
    assert len(info) == len(names)
    assert network.size_divisibility == 1
    assert network.padding_constraints == {}
