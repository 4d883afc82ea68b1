"""torchvision's MultiScaleRoIAlign for one image and an unknown number of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def pool(roi_pool: Any, features: Mapping[str, Tensor], boxes: Tensor) -> Tensor:
    """Pools ``boxes`` (R, 4), each from its level: (R, C, h, w). ``roi_pool`` must have run before: it infers the
    levels' scales from its first image and keeps them."""
    from torchvision.ops import roi_align

    levels = [level for name, level in features.items() if name in roi_pool.featmap_names]
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    options = {"output_size": roi_pool.output_size, "sampling_ratio": roi_pool.sampling_ratio}
    if len(levels) == 1:
        return roi_align(levels[0], rois, spatial_scale=roi_pool.scales[0], **options)
    belongs_to = roi_pool.map_levels([boxes])
    pooled = boxes.new_zeros((boxes.shape[0], levels[0].shape[1], *roi_pool.output_size))
    for number, (level, scale) in enumerate(zip(levels, roi_pool.scales, strict=True)):
        (index,) = torch.where(belongs_to == number)
        pooled = pooled.index_put((index,), roi_align(level, rois[index], spatial_scale=scale, **options))
    return pooled
