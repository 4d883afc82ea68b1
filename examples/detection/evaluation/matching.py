"""Which detections of an image are which of its objects, at one threshold of score and one of overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from detection.evaluation.records import Record

SCORE = 0.5
OVERLAP = 0.5


@dataclass(frozen=True)
class Matches:
    """``pairs`` of (true object, detection), ``missed`` true objects and ``false`` detections: indices into a record's.

    Crowds are no objects to be found, and a detection of their class within one is neither right nor false. So are the
    ignored regions of damaged annotations.
    """

    pairs: list[tuple[int, int]]
    missed: list[int]
    false: list[int]


def match(
    record: Record, *, score: float = SCORE, overlap: float = OVERLAP, by: str = "bbox", same_class: bool = True
) -> Matches:
    """Matches greedily, each object once.

    Within a class as COCO's metrics do: the highest score chooses first, the object that it overlaps most. Across
    classes, for the confusion matrix, the largest overlap first, then the right class, then the higher score.

    Args:
        score: detections below it are left out.
        overlap: the lowest intersection over union of a pair.
        by: "bbox" or "segm" (masks).
        same_class: whether only objects and detections of one class are paired.
    """
    if by not in ("bbox", "segm"):
        raise ValueError(f"by is {by!r}; allowed are 'bbox', 'segm'")
    if by == "segm" and (record.truth.masks is None or record.detections.masks is None):
        raise ValueError(f"by is 'segm', but image {record.image_id} was evaluated without masks")
    confident = np.flatnonzero(record.detections.scores >= score)
    crowd = record.truth.iscrowd != 0
    overlaps = _overlaps(record, by)  # (detections, true objects)
    right = record.detections.labels[:, None] == record.truth.labels[None]
    scores = record.detections.scores

    def order(detection: int, true: int) -> tuple:
        largest = -overlaps[detection, true]
        if same_class:
            return -scores[detection], detection, largest
        return largest, not right[detection, true], -scores[detection]

    candidates = [
        (*order(detection, true), detection, true)
        for detection in confident
        for true in np.flatnonzero(~crowd & (overlaps[detection] >= overlap))
        if right[detection, true] or not same_class
    ]
    detected, found = {}, set()
    for *_, detection, true in sorted(candidates):
        if detection not in detected and true not in found:
            detected[detection] = true
            found.add(true)
    within_crowd = (overlaps * (right & crowd[None]) >= overlap).any(axis=1)
    return Matches(
        pairs=[(int(true), int(detection)) for detection, true in detected.items()],
        missed=[int(true) for true in np.flatnonzero(~crowd) if true not in found],
        false=[int(it) for it in confident if it not in detected and not within_crowd[it]],
    )


def _overlaps(record: Record, by: str) -> np.ndarray:
    """Intersection over union (detections, true objects); with a crowd, over the detection's area alone."""
    found, truth = record.detections, record.truth
    if len(found) == 0 or len(truth) == 0:
        return np.zeros((len(found), len(truth)))
    pairs = (found.masks, truth.masks) if by == "segm" else (found.xywh(), truth.xywh())
    return np.asarray(coco_mask.iou(*pairs, (truth.iscrowd != 0).astype(np.uint8).tolist()))
