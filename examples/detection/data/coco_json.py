"""An instances JSON in COCO's format: read, checked, packed."""

from __future__ import annotations

import gc
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detection.data.ids import found, whole
from detection.data.images import Stated
from detection.data.normalised import Normalised
from detection.data.packed import Packed
from detection.data.segmentation import has_parts, shortened


class Content(NamedTuple):
    """What an instances JSON holds; images in the order of their ids."""

    image_ids: np.ndarray  # (n,) int64
    images: Packed  # of each image (file name, (height, width)), either side or the pair may be None
    annotations: Packed  # of each image the list of its annotations, dicts
    categories: dict[int, str]  # names by id, in the order of the ids
    keypoints: dict[int, tuple[str, ...]]  # names of the keypoints of those categories that have some
    segmented: bool  # whether any annotation has an RLE or a polygon of at least 3 points
    normalised: list[str]  # "boxes" or "polygons", or both, where all of them lie within 0 and 1
    stray: list[str]  # what is wrong with annotations that belong to no image


def read(path: Path) -> Content:
    """Reads an instances JSON. Single annotations are not checked, only which image they belong to.

    Ids of images and categories must be distinct whole numbers, names of categories and image files distinct texts.
    A ``file_name`` must lie within the folder of images, see :func:`detection.data.file_names.check_files`: so a JSON
    from elsewhere reads only what one pointed it at. ``height`` and ``width`` of an image may be missing. Ids of
    annotations are only used in messages.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: naming the file, the entry, what is wrong with it and what is allowed.
    """
    with _without_collector():
        content = _parse(path)
        categories, keypoints = _categories(path, _section(path, content, "categories"))
        image_ids, images = _images(path, _section(path, content, "images"))
        annotations = _section(path, content, "annotations")
        of_image: dict[int, list[Any]] = {number: [] for number in image_ids.tolist()}
        stray, segmented, normalised = [], False, Normalised()
        for position, annotation in enumerate(annotations):
            image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
            group = of_image.get(whole(image_id))
            if group is None:
                stray.append(_stray(path, position, annotation))
            else:
                group.append(annotation)
                segmented = segmented or has_parts(annotation.get("segmentation"))
                normalised.add(annotation)
        packed = Packed(of_image.values())
    return Content(image_ids, images, packed, categories, keypoints, segmented, normalised.kinds(), stray)


@contextmanager
def _without_collector():
    """Millions of new objects, none of them garbage, make the collector of cycles search for it again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it must be the instances JSON of a COCO data set")
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path} is no instances JSON: its lists are nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    return content if isinstance(content, dict) else {}


def _section(path: Path, content: dict[str, Any], name: str) -> list[Any]:
    entries = content.get(name)
    if not isinstance(entries, list):
        raise ValueError(f"{path} has no list {name!r}; it must have images, annotations and categories")
    if not entries:
        raise ValueError(f"{path}: its list {name!r} is empty")
    return entries


def _entry(path: Path, section: str, position: int, entry: Any, name: str) -> tuple[int, str]:
    """The entry's id and the text that it has under ``name``."""
    where = f"{path}: entry {position} of {section!r}"
    for key in ("id", name):
        if not isinstance(entry, dict) or key not in entry:
            raise ValueError(f"{where} has no {key!r}")
    number, text = whole(entry["id"]), entry[name]
    if number is None:
        raise ValueError(f"{where} has the id {found(entry['id'])}; ids must be integers")
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{where} has the {name} {shortened(text)}; it must be a text")
    return number, text


def _categories(path: Path, entries: list[Any]) -> tuple[dict[int, str], dict[int, tuple[str, ...]]]:
    names: dict[int, str] = {}
    keypoints = {}
    by_name: dict[str, int] = {}
    for position, entry in enumerate(entries):
        number, name = _entry(path, "categories", position, entry, "name")
        if number in names:
            raise ValueError(f"{path}: category id {number} is given twice, to {names[number]!r} and {name!r}")
        if name in by_name:
            raise ValueError(f"{path}: category name {name!r} is given twice, to ids {by_name[name]} and {number}")
        names[number], by_name[name] = name, number
        points = entry.get("keypoints")
        if points:
            if not isinstance(points, list) or not all(isinstance(point, str) for point in points):
                raise ValueError(f"{path}: category {number}'s keypoints are no list of names")
            if len(set(points)) < len(points):
                raise ValueError(f"{path}: category {number} has two keypoints of one name")
            keypoints[number] = tuple(points)
    return {number: names[number] for number in sorted(names)}, keypoints


def _images(path: Path, entries: list[Any]) -> tuple[np.ndarray, Packed]:
    images: dict[int, tuple[str, Stated | None]] = {}
    for position, entry in enumerate(entries):
        number, name = _entry(path, "images", position, entry, "file_name")
        if number in images:
            raise ValueError(f"{path}: image id {number} is given twice, to {images[number][0]!r} and {name!r}")
        sides = []
        for side in ("height", "width"):
            value = entry.get(side)
            if value is not None and (type(value) is not int or not 0 < value < 2**31):
                raise ValueError(
                    f"{path}: image {number} ({name}) has the {side} {shortened(value)}; "
                    "it must be a positive whole number, or missing"
                )
            sides.append(value)
        images[number] = (name, None if sides == [None, None] else tuple(sides))
    ids = sorted(images)
    return np.array(ids, dtype=np.int64), Packed(images[number] for number in ids)


def _stray(path: Path, position: int, annotation: Any) -> str:
    if not isinstance(annotation, dict):
        return f"{path}: entry {position} of 'annotations' is {shortened(annotation)}; it must be an object"
    name = shortened(annotation["id"]) if "id" in annotation else f"number {position}"
    if "image_id" not in annotation:
        return f"{path}: annotation {name} has no 'image_id'"
    image_id = annotation["image_id"]
    if whole(image_id) is None:
        return f"{path}: annotation {name} has the image_id {found(image_id)}; ids must be integers"
    return f"{path}: annotation {name} is of an image that is not listed, {shortened(image_id)}"
