"""A COCO data set whose objects are known, the ways in which other people's JSON differs from it, and an oracle."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor, nn

SIZE = (60, 90)
CATEGORIES = {1: "bar", 2: "square", 3: "disc"}
# Of each image, its objects: (category, x, y, width, height).
OBJECTS = {
    "one.png": [(1, 4, 5, 20, 16), (2, 40, 10, 24, 24), (2, 66, 38, 20, 20)],
    "two.png": [(2, 10, 8, 30, 12), (1, 50, 30, 14, 22)],
    "three.png": [(3, 20, 20, 45, 36)],
    "four.png": [(1, 2, 2, 18, 18), (3, 30, 30, 22, 12), (2, 60, 6, 22, 40), (1, 6, 36, 12, 20)],
    "five.png": [],
}


def mask_of(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def rle_of(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


def clean_content() -> dict[str, Any]:
    """As COCO writes it; polygons and run lengths in turn."""
    images, annotations = [], []
    for image_id, (name, objects) in enumerate(OBJECTS.items(), 1):
        images.append({"id": image_id, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for category, x, y, width, height in objects:
            polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": rle_of(mask_of(x, y, width, height)) if len(annotations) % 2 else polygon,
                }
            )
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(OBJECTS):
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write(folder: Path, content: dict[str, Any]) -> tuple[Path, Path]:
    write_images(folder / "images")
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "images", folder / "instances.json"


class Oracle(nn.Module):
    """Detects the planted objects, but the crowds; knows an image by its pixels. Labels are the categories' order."""

    def __init__(self, images: Path, crowds: tuple[tuple[str, int], ...] = ()):
        super().__init__()
        self.known: dict[bytes, list[tuple]] = {}
        for name, objects in OBJECTS.items():
            pixels = np.asarray(Image.open(images / name))
            single = [it for number, it in enumerate(objects) if (name, number) not in crowds]
            self.known[pixels.tobytes()] = single

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        predictions = []
        for image in images:
            objects = self.known[(image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes()]
            boxes = [[x, y, x + width, y + height] for _, x, y, width, height in objects]
            masks = np.array([mask_of(*box) for _, *box in objects], dtype=np.float32).reshape(-1, 1, *SIZE)
            predictions.append(
                {
                    "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                    "labels": torch.tensor([label for label, *_ in objects], dtype=torch.int64),
                    "scores": torch.full((len(objects),), 0.9),
                    "masks": torch.from_numpy(masks),
                }
            )
        return predictions


def _each(name: str, values: Any = None, of: str = "annotations"):
    """Sets the entry ``name`` of each annotation (or image) to ``values(position)``; leaves it out without."""

    def change(content: dict[str, Any]) -> None:
        for position, entry in enumerate(content[of]):
            if values is None:
                entry.pop(name)
            else:
                entry[name] = values(position)

    return change


def _only_what_is_needed(content: dict[str, Any]) -> None:
    for name in ("id", "area", "iscrowd", "bbox"):
        _each(name)(content)
    for name in ("height", "width"):
        _each(name, of="images")(content)
    del content["info"]


def _other_ids(content: dict[str, Any]) -> None:
    """Categories with gaps and in another order, images from 0 on; labels follow the ids' order as before."""
    category, image = {1: 4, 2: 17, 3: 900}, {1: 0, 2: 50, 3: 7, 4: 2**40, 5: 8}
    for entry in content["categories"]:
        entry["id"] = category[entry["id"]]
    for entry in content["images"]:
        entry["id"] = image[entry["id"]]
    for entry in content["annotations"]:
        entry["category_id"], entry["image_id"] = category[entry["category_id"]], image[entry["image_id"]]
    content["categories"].reverse()


def _in_another_order(content: dict[str, Any]) -> None:
    for name in ("images", "annotations", "categories"):
        content[name].reverse()


# What a JSON may be like, and still the truth is the truth.
SITUATIONS = {
    "as COCO's": lambda content: None,
    "annotation ids 0, 1, 2": _each("id", lambda position: position),
    "annotation ids all 1": _each("id", lambda position: 1),
    "annotation ids all 0": _each("id", lambda position: 0),
    "annotation ids are texts": _each("id", lambda position: f"object {position}"),
    "no annotation ids": _each("id"),
    "no iscrowd": _each("iscrowd"),
    "no area": _each("area"),
    "area 0": _each("area", lambda position: 0),
    "area NaN": _each("area", lambda position: float("nan")),
    "no bbox": _each("bbox"),
    "no height": _each("height", of="images"),
    "no width": _each("width", of="images"),
    "no info": lambda content: content.pop("info"),
    "only what is needed": _only_what_is_needed,
    "other ids": _other_ids,
    "in another order": _in_another_order,
}

POLYGON = [10, 10, 30, 10, 30, 30, 10, 30]
PIXELS = SIZE[0] * SIZE[1]


def _polygon(position: int, value: Any) -> dict[str, Any]:
    return {"segmentation": [[*POLYGON[:position], value, *POLYGON[position + 1 :]]]}


def _runs(counts: Any, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {"segmentation": {"size": list(size), "counts": counts}}


# Annotations that are damaged: each is skipped, and none else.
DAMAGED: dict[str, dict[str, Any]] = {
    "a coordinate is NaN": _polygon(2, float("nan")),
    "a coordinate is infinite": _polygon(3, float("inf")),
    "a coordinate is huge": _polygon(4, 1e9),
    "a coordinate is a text": _polygon(0, "10"),
    "a coordinate is missing": {"segmentation": [POLYGON[:-1]]},
    "run lengths end early": _runs([100, 20, PIXELS - 121]),
    "run lengths are too long": _runs([100, 20, PIXELS]),
    "run lengths are empty": _runs([]),
    "a run length is negative": _runs([100, -20, PIXELS - 80]),
    "a text of run lengths ends early": _runs(rle_of(mask_of(4, 4, 20, 20))["counts"][:-3]),
    "an empty text of run lengths": _runs(""),
    "run lengths of another size": _runs([100, 20, 7 * 30 - 120], (7, 30)),
    "run lengths without a size": {"segmentation": {"counts": [PIXELS]}},
    "a polygon of two points, though there is a box": {"segmentation": [[10, 10, 30, 30]]},
    "no segmentation": {"segmentation": None},
    "a number as segmentation": {"segmentation": 7},
    "an unknown category": {"category_id": 77},
    "a category that is a text": {"category_id": "1"},
    "no category": {"category_id": None},
    "iscrowd is 5": {"iscrowd": 5},
    "of an image that is not listed": {"image_id": 99},
    "of no image": {"image_id": None},
}

# Objects without any area: dropped.
WITHOUT_AREA: dict[str, dict[str, Any]] = {
    "a polygon without height": {"segmentation": [[10, 10, 30, 10, 20, 10]]},
    "a polygon outside the image": {"segmentation": [[-30, 4, -10, 4, -10, 20, -30, 20]]},
    "run lengths of no pixel": _runs([PIXELS]),
}


def with_annotation(changes: dict[str, Any]) -> dict[str, Any]:
    """The clean content, and one more annotation: of image 2, with ``changes``."""
    content = clean_content()
    more = copy.deepcopy(content["annotations"][0])
    more.update({"id": 500, "image_id": 2, "bbox": [10, 10, 20, 20], **changes})
    content["annotations"].insert(4, more)
    return content
