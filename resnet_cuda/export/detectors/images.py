"""Converts one image of any size to the batch for a detector's backbone [torchvision's GeneralizedRCNNTransform]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from resnet_cuda.export.detectors.clipping import clip


@dataclass(frozen=True)
class Image:
    """``batch`` (1, 3, Hp, Wp), zero-padded right and below; height and width before and after resizing, (2,)
    float32."""

    batch: Tensor
    original: Tensor
    resized: Tensor

    def clip(self, boxes: Tensor) -> Tensor:
        return clip(boxes, self.resized)

    def to_original(self, points: Tensor) -> Tensor:
        """``points`` (..., 2) of (x, y) in the original image's pixels."""
        return points * (self.original / self.resized).flip(0)


def prepare(transform: Any, image: Tensor) -> Image:
    """``image`` (3, H, W) normalised, resized and padded. H and W are integers, or symbols of torch.export."""
    height, width = image.shape[-2:]
    sizes = _sizes(transform, height, width)
    (new_height, new_width), (padded_height, padded_width) = sizes
    resized = functional.interpolate(
        transform.normalize(image)[None], size=(new_height, new_width), mode="bilinear", align_corners=False
    )
    batch = functional.pad(resized, (0, padded_width - new_width, 0, padded_height - new_height))
    return Image(batch, _pair(height, width, image), _pair(new_height, new_width, image))


def _sizes(transform: Any, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width after the resizing, and after the padding to multiples of ``size_divisible``."""
    step = transform.size_divisible
    if transform.fixed_size is not None:
        new_width, new_height = transform.fixed_size
    elif isinstance(height, int) and isinstance(width, int):
        scale = min(transform.min_size[-1] / min(height, width), transform.max_size / max(height, width))
        new_height, new_width = int(height * scale), int(width * scale)
    else:
        return _symbolic_sizes(transform, height, width)
    return (new_height, new_width), (-(-new_height // step) * step, -(-new_width // step) * step)


def _symbolic_sizes(transform: Any, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The same in float64, as Python computes it: one pixel more or less would be another image."""
    step = transform.size_divisible
    size = torch.stack([torch.scalar_tensor(it, dtype=torch.float64) for it in (height, width)])
    scale = torch.minimum(transform.min_size[-1] / size.min(), transform.max_size / size.max())
    new = (size * scale).floor().to(torch.int64)
    steps = torch.div(new + (step - 1), step, rounding_mode="floor")
    new_height, new_width = new.tolist()
    steps_down, steps_right = steps.tolist()
    for number in (new_height, new_width, steps_down, steps_right):
        torch._check(number >= 1)
    padded = (steps_down * step, steps_right * step)
    torch._check(padded[0] >= new_height)
    torch._check(padded[1] >= new_width)
    return (new_height, new_width), padded


def _pair(height: int, width: int, like: Tensor) -> Tensor:
    return torch.stack([torch.scalar_tensor(it, dtype=torch.float32, device=like.device) for it in (height, width)])
