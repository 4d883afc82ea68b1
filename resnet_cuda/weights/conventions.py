"""Conventions of weights that their keys do not show: colour order, pixel scale, the place of a bottleneck's stride."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pixels(NamedTuple):
    """The input of a network's first convolution: ``(value - mean) / std`` per channel, in ``order``.

    Values are 0 to 255; ``mean`` and ``std`` are in ``order``.
    """

    order: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __str__(self) -> str:
        divisor = 255 if self.std[0] > 2 else 1  # as torchvision's users write it
        mean, std = (", ".join(f"{value / divisor:g}" for value in values) for values in (self.mean, self.std))
        return f"{self.order}, 0 to {255 // divisor}, mean {mean}, std {std}"


_RGB = (123.675, 116.28, 103.53)
_CAFFE = (102.9801, 115.9465, 122.7717)
PIXELS = {
    # 0 to 1 there: mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225.
    "torchvision": Pixels("RGB", _RGB, (58.395, 57.12, 57.375)),
    "maskrcnn-benchmark": Pixels("BGR", _CAFFE, (1.0, 1.0, 1.0)),
    "detectron2": Pixels("BGR", _RGB[::-1], (1.0, 1.0, 1.0)),
    "mmdetection": Pixels("RGB", _RGB, (58.395, 57.12, 57.375)),
    "caffe2": Pixels("BGR", _CAFFE, (1.0, 1.0, 1.0)),
}


def convert_stem(weight: Tensor, source: Pixels, target: Pixels) -> Tensor:
    """Converts the stem convolution's weight (O, 3, kh, kw) from inputs of ``source`` to inputs of ``target``.

    Exact up to rounding if both have the same mean; else the target must normalise with the source's mean.

    Raises:
        ValueError: for another number of input channels.
    """
    if weight.dim() != 4 or weight.shape[1] != 3:
        raise ValueError(f"the stem's weight is of shape {tuple(weight.shape)}; pixels= needs (O, 3, kh, kw)")
    scale = weight.new_tensor(target.std, dtype=torch.float64)
    converted = weight.double()
    if source.order != target.order:
        converted = converted.flip(1)
    source_std = weight.new_tensor(
        source.std if source.order == target.order else source.std[::-1], dtype=torch.float64
    )
    factor = (scale / source_std)[:, None, None]
    return (converted * factor).to(weight.dtype)


def mean_in(order: str, pixels: Pixels) -> tuple[float, float, float]:
    """The mean of ``pixels`` in channel ``order``."""
    return pixels.mean if pixels.order == order else (pixels.mean[2], pixels.mean[1], pixels.mean[0])
