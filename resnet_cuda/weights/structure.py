"""Finds differences in what two models compute with the same tensors, as far as their modules show them."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from resnet_cuda.weights.target import Target, without_wrappers

_SIZES = ("stride", "dilation")


def differences(source: Target, target: Target) -> list[str]:
    """Differences between layers that both models have: kind, groups or epsilon of norms, dilation, activation,
    pooling, pyramid.

    Not compared here: a bottleneck's stride (see :meth:`Target.stride_in_1x1`), and a batch norm's epsilon, which is
    converted.
    """
    shared = [name for name in source.checkpoint.tensors if name in target.checkpoint.tensors]
    found = []
    for what, facts in (
        ("norms", _norm),
        ("convolutions", _convolution),
        ("blocks", _block),
        ("stems", _stem),
        ("pyramids' convolutions", _pyramid),
    ):
        differing = []
        for name in shared:
            one, other = facts(source, name), facts(target, name)
            if one is not None and other is not None and one != other:
                differing.append((name.rpartition(".")[0], one, other))
        if differing:
            name, one, other = differing[0]
            found.append(f"{len(differing)} {what} differ: {name} is {one} in the source and {other} in the model")
    if any(name.startswith("fpn.") for name in shared):
        one, other = _fusion(source.model), _fusion(target.model)
        if one != other:
            found.append(f"pyramids: {one} in the source, {other} in the model")
    return found


def _norm(side: Target, name: str) -> str | None:
    if not name.endswith(".weight") or not (".norm" in name or ".gn" in name):
        return None
    layer = side.module(name)
    if isinstance(layer, nn.GroupNorm):
        return f"GroupNorm of {layer.num_groups} groups, eps {layer.eps:g}"
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
        return f"InstanceNorm, eps {layer.eps:g}"
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
        return f"{type(layer).__name__} without statistics"
    return "BatchNorm" if ".norm" in name else None


def _convolution(side: Target, name: str) -> str | None:
    """Dilation, and the stride where it is not a bottleneck's, which may be in either of two convolutions."""
    layer = side.module(name)
    if not name.endswith(".weight") or not name.startswith(("stem", "res", "head")) or not hasattr(layer, "dilation"):
        return None
    dilation = _pair(layer.dilation)
    is_bottlenecks = ".conv" in name and not name.startswith("stem")
    stride = "" if is_bottlenecks else f"stride {_pair(layer.stride)}, "
    return f"{stride}dilation {dilation}"


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _pyramid(side: Target, name: str) -> str | None:
    """Whether a ReLU follows."""
    if not name.startswith("fpn.") or not name.endswith(".conv.weight"):
        return None
    relu = has_relu(side, name)
    return None if relu is None else ("followed by a ReLU" if relu else "not followed by a ReLU")


def has_relu(side: Target, name: str) -> bool | None:
    """Whether the module around a pyramid's convolution ends with a ReLU; None if that is unknown."""
    parent = side.around(name)
    if parent is None:
        return None
    if isinstance(parent, nn.Sequential):
        return any(isinstance(it, nn.ReLU) for it in parent)
    if hasattr(parent, "with_activation"):  # mmcv's ConvModule
        return bool(parent.with_activation)
    return False


def _block(side: Target, name: str) -> str | None:
    """Whether timm's block has a blur or a pooling after a convolution, and a block's activation."""
    if not name.endswith(".conv2.weight") or not name.startswith("res"):
        return None
    block = side.around(name, ".conv")
    if block is None:
        return None
    pooling = getattr(block, "aa", None)
    is_pooled = pooling is not None and not isinstance(pooling, nn.Identity)
    return f"{'with' if is_pooled else 'without'} a pooling of its own (aa), {_activation(block) or 'ReLU'}"


def _activation(parent: nn.Module) -> str | None:
    """Of a block or a body, under torchvision's or timm's name; whether it writes in place does not matter."""
    found = getattr(parent, "relu", None) or getattr(parent, "act1", None)
    if not isinstance(found, nn.Module):
        return getattr(found, "__name__", None)
    found = without_wrappers(found)
    options = [it for it in found.extra_repr().split(", ") if it and not it.startswith("inplace")]
    return f"{type(found).__name__}({', '.join(options)})" if options else type(found).__name__


def _stem(side: Target, name: str) -> str | None:
    """The activation and the pooling after a body's first norm, where they are modules."""
    if not re.fullmatch(r"stem\.(?:\d\.)?(?:norm|gn)\.weight", name):
        return None
    body = side.around(name)
    activation, pool = (None, None) if body is None else (_activation(body), getattr(body, "maxpool", None))
    if activation is None or not isinstance(pool, nn.Module):
        return None
    pool = without_wrappers(pool)
    sizes = [_pair(getattr(pool, size)) for size in ("kernel_size", "stride", "padding") if hasattr(pool, size)]
    return " ".join(map(str, (f"{activation}, {type(pool).__name__}", *sizes)))


def _fusion(model: nn.Module) -> str:
    """detectron2's way to add levels, and mmdetection's extra levels."""
    facts = ["sum"]
    for it in model.modules():
        if getattr(it, "_fuse_type", "sum") == "avg":
            facts[0] = "avg"
        if hasattr(it, "relu_before_extra_convs") and getattr(it, "add_extra_convs", False):
            relu = "with" if it.relu_before_extra_convs else "without"
            facts.append(f"extra levels {it.add_extra_convs}, {relu} a ReLU before")
    return ", ".join(facts)
