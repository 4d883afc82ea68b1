"""All annotations of an image: parsed, counted, and made a target of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from detection.data.annotation import Instance, Rules, ignored, parse
from detection.data.boxes import SMALLEST, Box, fits_as_corners, is_beyond
from detection.data.segmentation import Size, decode, shortened

LEAST_DROPPED = 1.0  # pixels a side that the bbox of an object has whose mask is empty, to be ignored


class Parsed(NamedTuple):
    """The annotations of an image, without its pixels."""

    annotations: int  # how many there are
    instances: list[Instance]  # those with an area
    problems: list[str]  # of each damaged annotation
    ignored: list[tuple[int, Box]]  # label and box of what is left out, where it has a good bbox
    dropped: int  # objects without area
    dropped_parts: int  # polygons of fewer than 3 points
    disagreeing: int  # objects whose bbox is not near the mask's
    boxes: int  # annotations with a bbox of four numbers
    beyond: int  # of these, those that reach beyond the image by more than 2 pixels
    first_beyond: str  # which is the first of those; "" where there is none
    as_corners: int  # those that are within the image if they are read as x1, y1, x2, y2

    @property
    def crowds(self) -> int:
        return sum(instance.crowd for instance in self.instances)


def parse_all(annotations: list[dict[str, Any]], size: Size, rules: Rules, image: Path, source: Path) -> Parsed:
    """Those of an image of ``size`` (H, W). ``image`` and ``source``, the JSON, are for messages."""
    instances, problems, left_out = [], [], []
    for position, annotation in enumerate(annotations):
        try:
            instance = parse(annotation, size, rules)
            instances.append(instance)
            if instance.box is None:
                left_out.append(ignored(annotation, size, rules, LEAST_DROPPED))
        except (ValueError, MemoryError) as error:
            reason = str(error) or "there is not enough memory for it"
            problems.append(f"{image}: annotation {_name(annotation, position)} in {source}: {reason}")
            left_out.append(ignored(annotation, size, rules, SMALLEST))
    kept = [instance for instance in instances if instance.box is not None]
    bboxes = [annotation.get("bbox") for annotation in annotations]
    beyond = [is_beyond(bbox, size) for bbox in bboxes]
    first_beyond = ""
    if True in beyond:
        first = beyond.index(True)
        first_beyond = (
            f"{image}: annotation {_name(annotations[first], first)}, bbox {shortened(bboxes[first])}, "
            f"in an image of {size[1]} x {size[0]} pixels (width x height)"
        )
    return Parsed(
        annotations=len(annotations),
        instances=kept,
        problems=problems,
        ignored=[entry for entry in left_out if entry is not None],
        dropped=len(instances) - len(kept),
        dropped_parts=sum(instance.dropped_parts for instance in instances),
        disagreeing=sum(instance.disagrees for instance in kept),
        boxes=sum(value is not None for value in beyond),
        beyond=sum(value is True for value in beyond),
        first_beyond=first_beyond,
        as_corners=sum(fits_as_corners(bbox, size) for bbox in bboxes),
    )


def _name(annotation: dict[str, Any], position: int) -> str:
    return shortened(annotation["id"]) if "id" in annotation else f"number {position} of the image"


def make_target(parsed: Parsed, size: Size, rules: Rules) -> dict[str, Any]:
    """The target of an image of ``size`` (H, W), see :class:`detection.data.coco_dataset.CocoInstances`."""
    instances, count = parsed.instances, len(parsed.instances)
    target = {
        "boxes": _boxes([instance.box for instance in instances]),
        "labels": torch.tensor([instance.label for instance in instances], dtype=torch.int64),
        "iscrowd": torch.tensor([instance.crowd for instance in instances], dtype=torch.int64),
        "area": torch.tensor([instance.area for instance in instances], dtype=torch.float32),
        "ignored_boxes": _boxes([box for _, box in parsed.ignored]),
        "ignored_labels": torch.tensor([label for label, _ in parsed.ignored], dtype=torch.int64),
    }
    if rules.targets == "masks":
        # One array for all, into which each mask is written, so that there is never a second copy of them.
        masks = np.zeros((count, *size), dtype=np.uint8)
        for mask, instance in zip(masks, instances, strict=True):
            decode(instance.rle, out=mask)
        target["masks"] = torch.from_numpy(masks)
    if rules.targets == "keypoints":
        points = np.array([instance.keypoints for instance in instances], dtype=np.float32)
        target["keypoints"] = torch.from_numpy(points.reshape(count, rules.keypoints, 3))
    return target


def _boxes(boxes: list[Box]) -> torch.Tensor:
    return torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(len(boxes), 4))
