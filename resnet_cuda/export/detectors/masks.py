"""Masks of detections in the image, for an unknown number of them [torchvision's paste_masks_in_image]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_PADDING = 1


def paste(masks: Tensor, boxes: Tensor, height: Any, width: Any) -> Tensor:
    """``masks`` (K, 1, M, M) resized to their ``boxes`` (K, 4), in zeros: (K, 1, height, width).

    Bilinear resizing is two matrix products, with two non-zero weights per row. torchvision resizes mask by mask, in a
    loop over sizes that depend on the boxes.
    """
    size = masks.shape[-1]
    padded = functional.pad(masks[:, 0], (_PADDING,) * 4)  # so that the border of a mask fades out
    x1, y1, x2, y2 = _expanded(boxes, (size + 2 * _PADDING) / size).to(torch.int64).unbind(1)
    down = _weights(y1, y2, height, padded)
    right = _weights(x1, x2, width, padded)
    return (down @ padded @ right.transpose(1, 2))[:, None]


def _expanded(boxes: Tensor, scale: float) -> Tensor:
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat([centre - half, centre + half], 1)


def _weights(first: Tensor, last: Tensor, length: Any, masks: Tensor) -> Tensor:
    """(K, length, M): what of each of a mask's M values a pixel gets. The mask lies on pixels ``first`` to ``last``,
    both (K,) int64."""
    size = masks.shape[-1]
    pixels = torch.arange(length, device=masks.device)[None] - first[:, None]  # (K, length), from the mask's first
    extent = (last - first + 1).clamp(min=1)[:, None]
    position = ((pixels + 0.5) * (size / extent.to(masks)) - 0.5).clamp(min=0)
    lower = position.floor().clamp(max=size - 1)
    upper = (lower + 1).clamp(max=size - 1)
    fraction = position - lower
    cells = torch.arange(size, device=masks.device, dtype=masks.dtype)
    weights = torch.where(cells == lower[..., None], 1 - fraction[..., None], 0)
    weights = weights + torch.where(cells == upper[..., None], fraction[..., None], 0)
    inside = (pixels >= 0) & (pixels < extent)
    return torch.where(inside[..., None], weights, 0)
