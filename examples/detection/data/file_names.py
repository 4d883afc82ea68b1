"""File names of a JSON: where each lies within the folder of images."""

from __future__ import annotations

import os.path
from pathlib import Path

from detection.data.packed import Packed


def located(folder: Path, name: str) -> Path:
    """The path of the file ``name``.

    Windows' separator is taken for one where there is no file whose name has it, but there is one in that folder.
    """
    path = folder / name
    if "\\" in name and not path.exists():
        other = folder / name.replace("\\", "/")
        if _is_within(_whole(folder), _whole(other)) and other.is_file():
            return other
    return path


def check_files(path: Path, folder: Path, images: Packed, image_ids: list[int]) -> None:
    """Checks the file names of ``images`` in the JSON ``path``.

    Raises:
        ValueError: where one leads out of the folder, or two are of the same file.
    """
    root = _whole(folder)
    seen: dict[str, int] = {}
    for index, number in enumerate(image_ids):
        name, _ = images[index]
        inner = _whole(located(Path(root), name)) if "\\" in name else os.path.normpath(os.path.join(root, name))
        if not _is_within(root, inner):
            raise ValueError(f"{path}: image file {name!r} is not within the folder {folder}")
        if inner in seen:
            raise ValueError(f"{path}: image file {name!r} is listed twice, under ids {seen[inner]} and {number}")
        seen[inner] = number


def _whole(path: Path) -> str:
    return os.path.normpath(os.path.abspath(path))


def _is_within(root: str, path: str) -> bool:
    return path != root and os.path.commonpath([root, path]) == root
