"""A COCO-format data set for torchvision's detectors: a folder of images and an instances JSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import Dataset

from detection.data.images import read_image

Sample = tuple[Tensor, dict[str, Any]]
Transform = Callable[[Sample, torch.Generator], Sample]
DAMAGED = ("refuse", "skip")


class DamagedSampleError(ValueError):
    """An image or an annotation that cannot be used; the message names the file."""


class CocoInstances(Dataset):
    """Images with instance masks.

    A sample is the image (3, H, W), float32 in 0..1, RGB, and its target: ``boxes`` (n, 4) x1 y1 x2 y2 in pixels,
    ``labels`` (n,) from 1 on, ``masks`` (n, H, W) uint8, ``image_id`` int, ``iscrowd`` (n,).

    Args:
        images: the folder that the JSON's file names are relative to.
        annotations: the instances JSON (polygons or RLE).
        damaged: "refuse" raises DamagedSampleError for an unreadable image or a wrong annotation; "skip" warns, leaves
            out the annotation, or gives the next readable image in place of the damaged one.

    Raises:
        FileNotFoundError, ValueError: naming the path and what is wrong with it.
    """

    def __init__(self, images: str | Path, annotations: str | Path, damaged: str = "refuse"):
        if damaged not in DAMAGED:
            raise ValueError(f"damaged is {damaged!r}; allowed are {', '.join(DAMAGED)}")
        self.folder, self.annotations, self.damaged = Path(images), Path(annotations), damaged
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is no folder of images")
        content = _read_json(self.annotations)
        self.categories: dict[int, str] = {entry["id"]: entry["name"] for entry in content["categories"]}
        # Labels are consecutive from 1 on (0 is the background), category ids need not be.
        self.category_ids: list[int] = sorted(self.categories)
        self._label_of = {category: label for label, category in enumerate(self.category_ids, 1)}
        self.images: list[dict[str, Any]] = sorted(content["images"], key=lambda entry: entry["id"])
        self._annotations_of: dict[int, list[dict[str, Any]]] = {entry["id"]: [] for entry in self.images}
        for annotation in content["annotations"]:
            of_image = self._annotations_of.get(annotation.get("image_id"))
            if of_image is None:
                self._report(f"{self.annotations}: annotation {annotation.get('id')} is of an image that is not listed")
            else:
                of_image.append(annotation)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        for skipped in range(len(self)):
            entry = self.images[(index + skipped) % len(self)]
            try:
                return self._sample(entry)
            except DamagedSampleError as error:
                self._report(str(error))
        raise DamagedSampleError(f"{self.folder}: none of the {len(self)} images can be read")

    def class_names(self) -> list[str]:
        """Names of the labels 1, 2, ..."""
        return [self.categories[category] for category in self.category_ids]

    def _report(self, message: str) -> None:
        if self.damaged == "refuse":
            raise DamagedSampleError(message)
        warnings.warn(f"skipped: {message}", stacklevel=3)

    def _sample(self, entry: dict[str, Any]) -> Sample:
        path = self.folder / entry["file_name"]
        try:
            image = read_image(path)
        except ValueError as error:
            raise DamagedSampleError(str(error)) from error
        size = tuple(image.shape[-2:])
        instances = []
        for annotation in self._annotations_of[entry["id"]]:
            try:
                instances.append(self._instance(annotation, size))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
                self._report(f"{path}: annotation {annotation.get('id')} in {self.annotations}: {reason}")
        return image, _target(instances, entry["id"], size)

    def _instance(self, annotation: dict[str, Any], size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
        category = annotation["category_id"]
        if category not in self._label_of:
            raise ValueError(f"category {category} is not among the categories")
        mask = decode(annotation["segmentation"], size)
        if not mask.any():
            raise ValueError("its mask is empty")
        return mask, self._label_of[category], int(annotation.get("iscrowd", 0))


def decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Polygons or RLE (counts as text or as a list) to a mask (H, W) uint8.

    Raises:
        ValueError: for what is neither, or of another size than the image.
    """
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != tuple(size):
            raise ValueError(f"its mask is of size {tuple(segmentation['size'])}, the image of {tuple(size)}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if sum(counts) != size[0] * size[1]:
                raise ValueError("its run lengths do not add up to the image's size")
            return coco_mask.decode(coco_mask.frPyObjects(segmentation, *size))
        return coco_mask.decode({"size": list(size), "counts": counts})
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("its segmentation is neither polygons nor RLE")
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon has fewer than three points, or half of one")
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size)))


def _target(instances: list[tuple[np.ndarray, int, int]], image_id: int, size: tuple[int, int]) -> dict[str, Any]:
    masks = torch.zeros((len(instances), *size), dtype=torch.uint8)
    boxes = torch.zeros((len(instances), 4))
    for index, (mask, _, _) in enumerate(instances):
        masks[index] = torch.from_numpy(mask)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        # To the far edge of the last pixel, so that the box of a single pixel has an area.
        boxes[index] = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return {
        "boxes": boxes,
        "labels": torch.tensor([label for _, label, _ in instances], dtype=torch.int64),
        "masks": masks,
        "image_id": image_id,
        "iscrowd": torch.tensor([crowd for _, _, crowd in instances], dtype=torch.int64),
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it must be the instances JSON of a COCO data set")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    for section, keys in (
        ("images", ("id", "file_name")),
        ("annotations", ("image_id",)),
        ("categories", ("id", "name")),
    ):
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"{path} has no list {section!r}; it must have images, annotations and categories")
        for number, entry in enumerate(entries):
            for key in keys:
                if not isinstance(entry, dict) or key not in entry:
                    raise ValueError(f"{path}: entry {number} of {section!r} has no {key!r}")
    return content
