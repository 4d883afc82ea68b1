"""Image ids of files: from the user's JSON, so that results score against it, or numbered."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from detection.models.options import ModelOptions

SHOWN = 5  # problems in one message


@dataclass(frozen=True)
class ImageEntry:
    """What is known of an image file: its id, its name in results, and its size (height, width) where a JSON has it."""

    id: int
    file_name: str
    size: tuple[int, int] | None = None


def numbered(files: Sequence[Path]) -> dict[Path, ImageEntry]:
    """Ids 1, 2, ... in the order of ``files``."""
    return {file: ImageEntry(number, file.as_posix()) for number, file in enumerate(files, 1)}


def category_ids_of(options: ModelOptions) -> list[int]:
    """The data set's category ids of the labels 1, 2, ..."""
    return list(options.category_ids) or list(range(1, len(options.class_names) + 1))


def of_annotations(
    files: Sequence[Path], annotations: Path, images: Path | None, options: ModelOptions
) -> dict[Path, ImageEntry]:
    """The entries of ``files`` in a JSON in COCO's format.

    A file within the folder ``images`` is looked up by its path in it, and where that is not listed, as any other file,
    by its name, which only one listed image may have.

    Raises:
        FileNotFoundError, ValueError: for a JSON that cannot be read; for files that are not listed, that several
            listed images may be, or that are one image; for categories that are not those of the model.
    """
    content = _read(annotations)
    _check_categories(annotations, content.get("categories"), options)
    by_path: dict[str, list[dict[str, Any]]] = {}
    by_name: dict[str, list[dict[str, Any]]] = {}
    for entry in content["images"]:
        path = PurePosixPath(str(entry["file_name"]).replace("\\", "/"))
        by_path.setdefault(path.as_posix(), []).append(entry)
        by_name.setdefault(path.name, []).append(entry)
    found: dict[Path, ImageEntry] = {}
    file_of: dict[int, Path] = {}
    problems = []
    for file in files:
        inside = _path_in(images, file) if images is not None else None
        entries = by_path.get(inside, []) if inside is not None else []
        entries = entries or by_name.get(file.name, [])
        if len(entries) != 1:
            how = f"is listed {len(entries)} times" if entries else "is not listed"
            problems.append(f"{file} {how}")
            continue
        (entry,) = entries
        if entry["id"] in file_of:
            problems.append(f"{file} and {file_of[entry['id']]} are both image {entry['id']}")
            continue
        file_of[entry["id"]] = file
        found[file] = ImageEntry(entry["id"], str(entry["file_name"]), _size(entry))
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"{annotations}: {'; '.join(problems[:SHOWN])}{more}; each file must be one listed image")
    return found


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if type(height) is int and type(width) is int else None


def _path_in(folder: Path, file: Path) -> str | None:
    """``file`` relative to ``folder``, with ``/``, or None where it is not inside."""
    relative = os.path.relpath(os.path.abspath(file), os.path.abspath(folder))
    return None if relative.startswith(os.pardir) else Path(relative).as_posix()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it must be a JSON in COCO's format")
    try:
        content = json.loads(path.read_bytes())  # with a byte order mark, or UTF-16, as the data set reads it
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise ValueError(f"{path} has no list 'images'")
    ids = set()
    for number, entry in enumerate(images):
        if (
            not isinstance(entry, dict)
            or type(entry.get("id")) is not int
            or not isinstance(entry.get("file_name"), str)
        ):
            raise ValueError(f"{path}: entry {number} of 'images' must have an integer 'id' and a text 'file_name'")
        if entry["id"] in ids:
            raise ValueError(f"{path}: image id {entry['id']} is listed twice")
        ids.add(entry["id"])
    return content


def _check_categories(path: Path, categories: Any, options: ModelOptions) -> None:
    """The model's ids must mean the same in the JSON; a JSON without categories is taken as it is."""
    if not isinstance(categories, list) or not categories:
        return
    names = {entry.get("id"): entry.get("name") for entry in categories if isinstance(entry, dict)}
    for category, name in zip(category_ids_of(options), options.class_names, strict=True):
        if names.get(category) != name:
            there = f"{names[category]!r}" if category in names else "not listed"
            raise ValueError(f"{path}: category {category} is {there}, for the model it is {name!r}")
