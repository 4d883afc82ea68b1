"""What the evaluation keeps of each image: its true objects and its detections, masks as run lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

MASK_THRESHOLD = 0.5
RLE = dict[str, Any]  # pycocotools' compressed run lengths: {"size": [H, W], "counts": bytes}


@dataclass
class Objects:
    """Objects of one image. ``boxes`` (n, 4) float64 x1 y1 x2 y2 in pixels, ``labels`` (n,) int64 from 1 on.

    ``area`` (n,) float64 in pixels and ``iscrowd`` (n,) int64 are of true objects, ``scores`` (n,) float64 of
    detections. ``masks`` (n run lengths) and ``keypoints`` (n, K, 3) float64 x, y, visibility are None where there are
    none to evaluate.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    area: np.ndarray | None = None
    iscrowd: np.ndarray | None = None
    masks: list[RLE] | None = None
    keypoints: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def xywh(self) -> np.ndarray:
        """COCO's boxes (n, 4): x, y, width, height."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)


@dataclass
class Record:
    """One evaluated image.

    ``index`` is the sample's in the data set, ``image_id`` the user's, ``size`` (H, W); ``skipped`` and ``dropped``
    count its annotations that were left out as damaged, and its objects without area. The last ``ignored`` of ``truth``
    are no objects but places of such annotations, see :func:`truth_of`.
    """

    index: int
    image_id: int | str
    size: tuple[int, int]
    truth: Objects
    detections: Objects
    skipped: int = 0
    dropped: int = 0
    ignored: int = 0


def encode(masks: Tensor) -> list[RLE]:
    """Masks (n, H, W), not 0 within the object, as run lengths; one at a time, so that no second copy of all exists."""
    return [coco_mask.encode(np.asfortranarray((mask != 0).to(torch.uint8).cpu().numpy())) for mask in masks]


def truth_of(target: dict[str, Any], targets: str, size: tuple[int, int] | None = None) -> Objects:
    """The true objects of a sample's target; ``targets`` says what of it counts: "masks", "keypoints" or "boxes".

    ``area`` falls back to the mask's and then to the box's where none, or no positive one is given, ``iscrowd`` to 0.

    Where the target has ``ignored_boxes`` (m, 4) and ``ignored_labels`` (m,), of annotations that were left out as
    damaged, they follow as crowds: a detection there may well be right, so it must not count as wrong. Such a region's
    mask is the whole box in an image of ``size`` (H, W), which masks need; its keypoints are 0, not visible.
    """
    boxes = _array(target["boxes"]).reshape(-1, 4)
    labels = target["labels"].cpu().numpy().astype(np.int64)
    masks = encode(target["masks"]) if targets == "masks" else None
    keypoints = _array(target["keypoints"]) if targets == "keypoints" else None
    if masks is not None:
        area = np.array([coco_mask.area(mask) for mask in masks], dtype=np.float64)
    else:
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    if target.get("area") is not None:
        given = _array(target["area"])
        area = np.where(np.isfinite(given) & (given > 0), given, area)
    if target.get("iscrowd") is not None:
        iscrowd = target["iscrowd"].cpu().numpy().astype(np.int64)
    else:
        iscrowd = np.zeros(len(labels), dtype=np.int64)
    objects = Objects(boxes, labels, area=area, iscrowd=iscrowd, masks=masks, keypoints=keypoints)
    return _with_ignored(objects, target, size) if ignored_in(target) else objects


def ignored_in(target: dict[str, Any]) -> int:
    """How many regions of damaged annotations the target has."""
    return len(target["ignored_labels"]) if target.get("ignored_boxes") is not None else 0


def _with_ignored(objects: Objects, target: dict[str, Any], size: tuple[int, int] | None) -> Objects:
    boxes = _array(target["ignored_boxes"]).reshape(-1, 4)
    labels = target["ignored_labels"].cpu().numpy().astype(np.int64)
    masks, keypoints = objects.masks, objects.keypoints
    if masks is not None:
        if size is None:
            raise ValueError("size is None; masks of ignored regions need the image's (H, W)")
        masks = [*masks, *(_filled(box, size) for box in boxes)]
    if keypoints is not None:
        keypoints = np.concatenate([keypoints, np.zeros((len(boxes), *keypoints.shape[1:]))])
    return Objects(
        boxes=np.concatenate([objects.boxes, boxes]),
        labels=np.concatenate([objects.labels, labels]),
        area=np.concatenate([objects.area, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)]),
        iscrowd=np.concatenate([objects.iscrowd, np.ones(len(boxes), dtype=np.int64)]),
        masks=masks,
        keypoints=keypoints,
    )


def _filled(box: np.ndarray, size: tuple[int, int]) -> RLE:
    """All pixels that the box (4,) x1 y1 x2 y2 touches."""
    mask = np.zeros(size, dtype=np.uint8, order="F")
    left, top = np.floor(box[:2]).clip(0).astype(int)
    right, bottom = np.ceil(box[2:]).clip(0).astype(int)
    mask[top:bottom, left:right] = 1
    return coco_mask.encode(mask)


def detections_of(prediction: dict[str, Tensor]) -> Objects:
    """A torchvision detector's output for one image: ``boxes``, ``labels``, ``scores``, and ``masks`` (n, 1, H, W) in
    0..1 or ``keypoints`` (n, K, 3) where it has them.

    Raises:
        ValueError: for boxes, scores or keypoints that are NaN or infinite.
    """
    boxes, scores = _array(prediction["boxes"]).reshape(-1, 4), _array(prediction["scores"])
    keypoints = _array(prediction["keypoints"]) if "keypoints" in prediction else None
    for name, values in (("boxes", boxes), ("scores", scores), ("keypoints", keypoints)):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"the model's {name} are NaN or infinite; they must be finite. Has its training diverged?")
    masks = None
    if "masks" in prediction:
        masks = [rle for mask in prediction["masks"] for rle in encode(mask >= MASK_THRESHOLD)]
    labels = prediction["labels"].cpu().numpy().astype(np.int64)
    return Objects(boxes, labels, scores=scores, masks=masks, keypoints=keypoints)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
