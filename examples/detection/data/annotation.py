"""One annotation of an instances JSON, checked: label, box, mask, keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from detection.data.segmentation import Rle, Size, box_of, encode, is_finite_number, shortened

Box = tuple[float, float, float, float]  # edges x1, y1, x2, y2 in pixels
NEAR = 2.0  # pixels; a bbox of which each edge is as near as this to the mask's is the object's box


class Rules(NamedTuple):
    """What annotations are read as."""

    label_of: dict[int, int]  # category id -> label
    targets: str  # "masks", "boxes" or "keypoints"
    keypoints: int = 0  # number of keypoints of an object


class Instance(NamedTuple):
    """An object. ``box`` is None where it has no area in the image: it is dropped."""

    label: int
    crowd: int
    box: Box | None
    area: float
    rle: Rle | None = None
    keypoints: np.ndarray | None = None  # (K, 3) float32
    dropped_parts: int = 0  # polygons of fewer than 3 points
    disagrees: bool = False  # its bbox is not near the mask's, which is its box then


def parse(annotation: dict[str, Any], size: Size, rules: Rules) -> Instance:
    """Checks an annotation of an image of ``size`` (H, W) in pixels.

    With "masks" the box is the annotation's ``bbox``, by which COCO's official AP counts, where each of its edges is
    within 2 pixels of the mask's; else the mask's. Otherwise it is the ``bbox``, cut to the image, or that of the
    segmentation where there is no ``bbox``.

    Raises:
        ValueError: what is wrong, and what is allowed.
    """
    category = annotation.get("category_id")
    if type(category) is not int or category not in rules.label_of:
        raise ValueError(f"category {shortened(category)} is not among the categories")
    crowd = annotation.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise ValueError(f"its iscrowd is {shortened(crowd)}; it must be 0 or 1")
    rle, dropped_parts, disagrees = None, 0, False
    keypoints = _keypoints(annotation, size, rules.keypoints) if rules.targets == "keypoints" else None
    bbox = annotation.get("bbox") or None
    segmentation = annotation.get("segmentation") or None
    if rules.targets == "masks" or bbox is None:
        if segmentation is None:
            raise ValueError("it has no segmentation" + ("" if rules.targets == "masks" else " and no bbox"))
        rle, dropped_parts = encode(segmentation, size)
        box, area = box_of(rle), float(coco_mask.area(rle))
        if bbox is not None and area:
            stated = _stated_box(bbox, size)
            disagrees = stated is None or max(abs(a - b) for a, b in zip(stated, box, strict=True)) > NEAR
            box = box if disagrees else stated
    else:
        box = _checked_box(bbox, size)
        area = 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1])
    if not area:
        return Instance(rules.label_of[category], int(crowd), None, 0.0, dropped_parts=dropped_parts)
    stated_area = annotation.get("area")
    if is_finite_number(stated_area) and stated_area >= 1e-6:
        area = float(stated_area)
    rle = rle if rules.targets == "masks" else None
    return Instance(rules.label_of[category], int(crowd), box, area, rle, keypoints, dropped_parts, disagrees)


def _cut(bbox: Sequence[float], size: Size) -> Box | None:
    """x, y, width, height to edges within the image; None where nothing, or nothing that float32 shows, is left."""
    x, y, width, height = bbox
    edges = (max(x, 0), max(y, 0), min(x + width, size[1]), min(y + height, size[0]))
    x1, y1, x2, y2 = (float(edge) for edge in np.array(edges, dtype=np.float32))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _is_box(bbox: Any) -> bool:
    return isinstance(bbox, list) and len(bbox) == 4 and all(map(is_finite_number, bbox))


def _stated_box(bbox: Any, size: Size) -> Box | None:
    return _cut(bbox, size) if _is_box(bbox) else None


def _checked_box(bbox: Any, size: Size) -> Box | None:
    if not _is_box(bbox):
        raise ValueError(f"its bbox is {shortened(bbox)}; it must be four numbers, x, y, width, height")
    x, y, width, height = bbox
    if width < 0 or height < 0:
        raise ValueError(f"its bbox has the width {shortened(width)} and the height {shortened(height)}")
    for low, length, side in ((x, width, size[1]), (y, height, size[0])):
        if low < -side or low + length > 2 * side:
            raise ValueError(
                f"its bbox {shortened(bbox)} is far outside the image of {size[1]} x {size[0]} pixels (width x height)"
            )
    return _cut(bbox, size)


def _keypoints(annotation: dict[str, Any], size: Size, count: int) -> np.ndarray:
    values = annotation.get("keypoints")
    if values is None and not annotation.get("num_keypoints"):
        return np.zeros((count, 3), dtype=np.float32)  # an object of which none was marked
    if not isinstance(values, list) or len(values) != 3 * count:
        found = f"{len(values)} values" if isinstance(values, list) else shortened(values)
        raise ValueError(f"its keypoints are {found}; they must be {3 * count}, x, y and visibility of {count}")
    if not all(map(is_finite_number, values)):
        raise ValueError("its keypoints are not all numbers")
    points = np.array(values, dtype=np.float64).reshape(count, 3)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise ValueError("the visibility of a keypoint is none of 0, 1, 2")
    limit = np.array([size[1], size[0]])
    if ((points[:, :2] < -limit) | (points[:, :2] > 2 * limit)).any():
        raise ValueError(f"a keypoint is far outside the image of {size[1]} x {size[0]} pixels (width x height)")
    points *= points[:, 2:] > 0  # as COCO writes those that are not marked
    return points.astype(np.float32)
