"""Ground truth and detections as pycocotools' COCO objects, from what the data set gave and the model found.

The ids are our own: an image's is its index in the data set, a category's is its label, annotations count from 1. So
nothing depends on the ids, areas or sizes in the user's JSON, which may be missing, 0 or the same twice; COCOeval takes
an annotation whose id is 0 for no match.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from detection.evaluation.records import Record


def coco_truth(records: Sequence[Record], class_names: Sequence[str]) -> COCO:
    """The true objects of the evaluated images; an image without objects counts, a skipped one is not among them.

    Ignored regions are among them as crowds, which COCOeval counts as no objects.
    """
    annotations: list[dict[str, Any]] = []
    for record in records:
        truth = record.truth
        for number, box in enumerate(truth.xywh().tolist()):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": record.index,
                "category_id": int(truth.labels[number]),
                "bbox": box,
                "area": float(truth.area[number]),
                "iscrowd": int(truth.iscrowd[number]),
            }
            if truth.masks is not None:
                annotation["segmentation"] = truth.masks[number]
            if truth.keypoints is not None:
                points = truth.keypoints[number]
                annotation["keypoints"] = points.flatten().tolist()
                annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
            annotations.append(annotation)
    return _coco(records, class_names, annotations)


def coco_detections(records: Sequence[Record], class_names: Sequence[str], kind: str) -> COCO:
    """The detections for one ``kind`` of COCOeval: "bbox", "segm" or "keypoints".

    A detection's area decides which sizes it counts for: the box's, the mask's, or that of the rectangle around the
    keypoints. (``COCO.loadRes`` takes the box's wherever there is a box, and fails where nothing was detected.)
    """
    annotations: list[dict[str, Any]] = []
    for record in records:
        found = record.detections
        for number, box in enumerate(found.xywh().tolist()):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": record.index,
                "category_id": int(found.labels[number]),
                "score": float(found.scores[number]),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            if kind == "segm":
                annotation["segmentation"] = found.masks[number]
                annotation["area"] = float(coco_mask.area(found.masks[number]))
            if kind == "keypoints":
                points = found.keypoints[number]
                annotation["keypoints"] = points.flatten().tolist()
                annotation["area"] = float(np.prod(points[:, :2].max(axis=0) - points[:, :2].min(axis=0)))
            annotations.append(annotation)
    return _coco(records, class_names, annotations)


def _coco(records: Sequence[Record], class_names: Sequence[str], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": it.index, "height": it.size[0], "width": it.size[1]} for it in records],
        "categories": [{"id": label, "name": name} for label, name in enumerate(class_names, 1)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco
