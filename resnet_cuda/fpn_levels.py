"""The levels that a feature pyramid returns, derived from its input levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda.fpn import FPN, FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from resnet_cuda.meta_copy import meta_copy, stride_of
from resnet_cuda.output_shape import Level

_SIZE = 256  # rows of the last level where blocks on top are measured


def levels_of_fpn(name: str, fpn: FPN, inputs: list[Level]) -> list[Level]:
    """ "p2".."p7": a level has the number of its stage, extra levels count on. ``name`` is the name of ``fpn``."""
    levels = [
        Level(f"p{_number(inputs[it - 1])}", fpn.out_channels, inputs[it - 1].stride, f"{name}.fpn_layer{it}")
        for it in fpn.levels
    ]
    top, last = fpn.top_blocks, levels[-1]
    if top is None:
        return levels
    where = f"{name}.top_blocks"
    if type(top) in (LastLevelMaxPool, LastLevelP6P7):
        added = _added_by(where, top, last)
    else:
        results = _on_meta(where, top, lambda copy, tensors: copy(tensors[-1]), [last])
        added = _measured(where, [f"{index}" for index in range(len(results))], results, last)
    return levels + [level._replace(name=f"p{_number(last) + count}") for count, level in enumerate(added, 1)]


def levels_of_pyramid(name: str, fpn: FeaturePyramidNetwork, inputs: list[Level]) -> list[Level]:
    """The inputs' names, and those of the extra blocks."""
    levels = [
        Level(level.name, fpn.out_channels, level.stride, f"{name}.layer_blocks.{index}")
        for index, level in enumerate(inputs)
    ]
    extra = fpn.extra_blocks
    if extra is None:
        return levels
    where = f"{name}.extra_blocks"
    if type(extra) in (LastLevelMaxPool, LastLevelP6P7):
        return levels + _added_by(where, extra, levels[-1])

    def run(copy: nn.Module, tensors: list[Tensor]):
        count, names = len(levels), [level.name for level in levels]
        return copy(tensors[:count], tensors[count:], names)

    results, names = _on_meta(where, extra, run, [*levels, *inputs])
    measured = _measured(where, names, results, levels[-1])
    # What the blocks pass on is a level of the pyramid still.
    own = {level[:3]: level for level in levels}
    return [own.get(level[:3], level) for level in measured]


def _number(level: Level) -> int:
    """5 of "res5" and of "p5"."""
    return int(level.name.removeprefix("res").removeprefix("p"))


def _added_by(name: str, top: nn.Module, last: Level) -> list[Level]:
    if isinstance(top, LastLevelP6P7):
        p6 = Level("p6", top.p6.out_channels, 2 * last.stride, f"{name}.p6")
        return [p6, Level("p7", top.p7.out_channels, 4 * last.stride, f"{name}.p7")]
    return [Level("pool", last.channels, 2 * last.stride, name)]


def _on_meta(name: str, module: nn.Module, run: Callable[[nn.Module, list[Tensor]], Any], levels: list[Level]) -> Any:
    """What ``run`` gives for a copy of a user's module and tensors of the levels' shapes."""
    largest = max(level.stride for level in levels)
    dtype = next((it.dtype for it in module.parameters()), torch.float32)
    sizes = [(1, level.channels, *[_SIZE * largest // level.stride] * 2) for level in levels]
    try:
        with torch.no_grad():
            return run(meta_copy(module), [torch.empty(size, dtype=dtype, device="meta") for size in sizes])
    except Exception as error:
        raise ValueError(
            f"{name} is a {type(module).__name__}, whose levels cannot be measured on the meta device: {error}"
        ) from error


def _measured(name: str, names: list[str], results: list[Tensor], last: Level) -> list[Level]:
    size = _SIZE * last.stride
    return [
        Level(it, result.shape[1], stride_of(size, result), name) for it, result in zip(names, results, strict=True)
    ]
