"""One annotation of an instances JSON, checked: label, box, mask, keypoints."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from detection.data.boxes import NEAR, Box, checked_box, cut_edges, stated_box, usable_box
from detection.data.ids import found, whole
from detection.data.segmentation import (
    Rle,
    Size,
    box_of,
    encode,
    extents,
    has_parts,
    is_empty,
    is_finite_number,
    shortened,
)


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
    within 2 pixels of the mask's or of the polygons' own; else the mask's. Otherwise it is the ``bbox``, cut to the
    image, or that of the segmentation where there is no ``bbox``.

    Raises:
        ValueError: what is wrong, and what is allowed.
    """
    label = _label(annotation, rules)
    crowd = annotation.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise ValueError(f"its iscrowd is {shortened(crowd)}; it must be 0 or 1")
    rle, dropped_parts, disagrees = None, 0, False
    keypoints = _keypoints(annotation, size, rules.keypoints) if rules.targets == "keypoints" else None
    bbox = annotation.get("bbox") or None
    segmentation = annotation.get("segmentation")
    if rules.targets == "masks" or bbox is None:
        if is_empty(segmentation):
            raise ValueError("it has no segmentation" + ("" if rules.targets == "masks" else " and no bbox"))
        rle, dropped_parts = encode(segmentation, size)
        box, area = box_of(rle), float(coco_mask.area(rle))
        if not area and not has_parts(segmentation) and usable_box(bbox, size):
            raise ValueError("it has no segmentation: it has a bbox, but none of its polygons has three points")
        if bbox is not None and area:
            stated = stated_box(bbox, size)
            disagrees = stated is None or not _is_near(stated, box, segmentation, size)
            box = box if disagrees else stated
    else:
        box = checked_box(bbox, size)
        area = 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1])
    if not area:
        return Instance(label, int(crowd), None, 0.0, dropped_parts=dropped_parts)
    stated_area = annotation.get("area")
    if is_finite_number(stated_area) and stated_area >= 1e-6:
        area = float(stated_area)
    rle = rle if rules.targets == "masks" else None
    return Instance(label, int(crowd), box, area, rle, keypoints, dropped_parts, disagrees)


def ignored(annotation: Any, size: Size, rules: Rules, least: float) -> tuple[int, Box] | None:
    """Label and box of an annotation that is left out: there is an object, so that finding it is no mistake.

    None where its category is not known, or its ``bbox`` is not within the image or below ``least`` pixels a side.
    """
    if not isinstance(annotation, dict):
        return None
    label = rules.label_of.get(whole(annotation.get("category_id")))
    box = usable_box(annotation.get("bbox"), size, least)
    return None if label is None or box is None else (label, box)


def _label(annotation: dict[str, Any], rules: Rules) -> int:
    category = annotation.get("category_id")
    number = whole(category)
    if number is None and category is not None:
        raise ValueError(f"category {found(category)} is no id; ids must be integers")
    if number not in rules.label_of:
        raise ValueError(f"category {shortened(category)} is not among the categories")
    return rules.label_of[number]


def _is_near(stated: Box, mask: Box, segmentation: Any, size: Size) -> bool:
    outline = extents(segmentation)
    outline = None if outline is None else cut_edges(outline, size)
    return all(
        abs(edge - of_mask) <= NEAR or abs(edge - of_outline) <= NEAR
        for edge, of_mask, of_outline in zip(stated, mask, outline or mask, strict=True)
    )


def _keypoints(annotation: dict[str, Any], size: Size, count: int) -> np.ndarray:
    values = annotation.get("keypoints")
    if values is None and not annotation.get("num_keypoints"):
        return np.zeros((count, 3), dtype=np.float32)  # an object of which none was marked
    if not isinstance(values, list) or len(values) != 3 * count:
        has = f"{len(values)} values" if isinstance(values, list) else shortened(values)
        raise ValueError(f"its keypoints are {has}; they must be {3 * count}, x, y and visibility of {count}")
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
