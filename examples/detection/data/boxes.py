"""Boxes of annotations: x, y, width, height in pixels, to edges x1, y1, x2, y2 within the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detection.data.segmentation import Size, is_finite_number, shortened

Box = tuple[float, float, float, float]  # edges x1, y1, x2, y2 in pixels
NEAR = 2.0  # pixels; edges that are as near as this to each other mean the same
SMALLEST = 1e-3  # pixels; of a narrower or lower box no detector's loss is finite


def is_box(bbox: Any) -> bool:
    """Whether it is a list of four finite numbers."""
    return isinstance(bbox, list) and len(bbox) == 4 and all(map(is_finite_number, bbox))


def cut(bbox: Sequence[float], size: Size) -> Box | None:
    """x, y, width, height to edges within the image of ``size`` (H, W); None where less than 0.001 pixels is left."""
    x, y, width, height = bbox
    return cut_edges((x, y, x + width, y + height), size)


def cut_edges(edges: Box, size: Size) -> Box | None:
    """Edges x1, y1, x2, y2, rounded to float32, within the image; None where less than 0.001 pixels is left."""
    edges = (max(edges[0], 0), max(edges[1], 0), min(edges[2], size[1]), min(edges[3], size[0]))
    x1, y1, x2, y2 = (float(edge) for edge in np.array(edges, dtype=np.float32))
    return (x1, y1, x2, y2) if x2 - x1 >= SMALLEST and y2 - y1 >= SMALLEST else None


def stated_box(bbox: Any, size: Size) -> Box | None:
    """The box cut to the image; None where ``bbox`` is none, or nothing of it is in the image."""
    return cut(bbox, size) if is_box(bbox) else None


def checked_box(bbox: Any, size: Size) -> Box | None:
    """The box cut to the image; None where nothing is left of it.

    Raises:
        ValueError: for what is no box, a negative width or height, or a box far outside the image.
    """
    if not is_box(bbox):
        raise ValueError(f"its bbox is {shortened(bbox)}; it must be four numbers, x, y, width, height")
    x, y, width, height = bbox
    if width < 0 or height < 0:
        raise ValueError(f"its bbox has the width {shortened(width)} and the height {shortened(height)}")
    for low, length, side in ((x, width, size[1]), (y, height, size[0])):
        if low < -side or low + length > 2 * side:
            raise ValueError(
                f"its bbox {shortened(bbox)} is far outside the image of {size[1]} x {size[0]} pixels (width x height)"
            )
    return cut(bbox, size)


def is_beyond(bbox: Any, size: Size) -> bool | None:
    """Whether the box reaches beyond the image by more than 2 pixels; None where it is no box."""
    if not is_box(bbox):
        return None
    x, y, width, height = bbox
    return min(x, y) < -NEAR or x + width > size[1] + NEAR or y + height > size[0] + NEAR


def fits_as_corners(bbox: Any, size: Size) -> bool:
    """Whether it is a box within the image, to 2 pixels, if it is read as x1, y1, x2, y2."""
    if not is_box(bbox):
        return False
    x1, y1, x2, y2 = bbox
    return x1 < x2 and y1 < y2 and not is_beyond([x1, y1, x2 - x1, y2 - y1], size)


def usable_box(bbox: Any, size: Size, least: float = SMALLEST) -> Box | None:
    """The box of an annotation that is left out for another reason: within the image, of ``least`` pixels a side."""
    if not is_box(bbox) or is_beyond(bbox, size):
        return None
    box = cut(bbox, size)
    return box if box is not None and min(box[2] - box[0], box[3] - box[1]) >= least else None
