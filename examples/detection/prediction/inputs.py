"""Image files by files, folders and patterns, and names for what is written about each."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm"),
        *(".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    )
)


def image_files(patterns: Sequence[str | Path], exclude: Path | None = None) -> list[Path]:
    """The image files that are meant, each once, in the order given; a folder's and a pattern's are sorted.

    Args:
        patterns: files, which are taken whatever their names are; folders, searched with all their sub-folders for
            files with the suffix of an image; patterns with ``*``, ``?``, ``[...]``, and ``**`` for any sub-folders.
            Hidden files and folders (``.name``) are found only by their own names.
        exclude: a folder of which no file is found by folder or pattern: where pictures have been written before.

    Raises:
        ValueError: naming the entry that matches nothing.
    """
    if isinstance(patterns, (str, Path)):
        patterns = [patterns]
    if not patterns:
        raise ValueError("no image files are given; it must be files, folders or patterns")
    outside = os.path.abspath(exclude) + os.sep if exclude is not None else None
    found: dict[str, Path] = {}  # by the absolute path, so that each comes once
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():
            found.setdefault(os.path.abspath(path), path)
            continue
        matches = _images_in(path) if path.is_dir() else _matches(str(pattern))
        files = {os.path.abspath(file): file for file in matches}
        if outside is not None:
            files = {absolute: file for absolute, file in files.items() if not absolute.startswith(outside)}
        if not files:
            raise ValueError(f"{pattern}: {_why_nothing(path)}")
        for absolute in sorted(files):
            found.setdefault(absolute, files[absolute])
    return list(found.values())


def _why_nothing(path: Path) -> str:
    if path.is_dir():
        return f"no image is in this folder; known suffixes are {', '.join(sorted(SUFFIXES))}"
    return "no image matches this pattern" if glob.has_magic(str(path)) else "there is no such file or folder"


def _matches(pattern: str) -> Iterator[Path]:
    for name in glob.iglob(pattern, recursive=True):
        path = Path(name)
        if path.is_dir():
            yield from _images_in(path)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _images_in(folder: Path) -> Iterator[Path]:
    seen = set()  # folders may be links to each other
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [name for name in folders if not name.startswith(".")] if real not in seen else []
        if real in seen:
            continue
        seen.add(real)
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(root) / name


def output_names(
    files: Iterable[Path], output: Path | None = None, endings: Sequence[str] = (".png",)
) -> dict[Path, str]:
    """For each file the name, relative and with ``/``, of what is written about it, without its ending.

    Sub-folders of the files' common folder are kept. ``a/x.jpg`` and ``b/x.jpg`` get ``a/x`` and ``b/x``; ``x.jpg`` and
    ``x.png`` of one folder ``x.jpg`` and ``x.png``, and a number is added where that is taken, too.

    Args:
        files: each once.
        output: the folder that will be written to. No name with one of ``endings`` is then an input there.
        endings: what the names will be followed by; two names with endings are never equal, also where a file system
            does not tell upper case from lower case.
    """
    files = list(files)
    inputs = {os.path.realpath(file).casefold() for file in files}
    relative = _relative(files)

    def claims(name: str) -> set[str]:
        return {(name + ending).casefold() for ending in endings}

    def usable(name: str) -> bool:
        if claims(name) & taken:
            return False
        return output is None or all(os.path.realpath(output / (name + it)).casefold() not in inputs for it in endings)

    short = {file: path.with_suffix("").as_posix() if path.stem else path.as_posix() for file, path in relative.items()}
    count: dict[str, int] = {}
    for name in short.values():
        for claim in claims(name):
            count[claim] = count.get(claim, 0) + 1
    names: dict[Path, str] = {}
    taken: set[str] = set()
    # Those that keep their short name come first: another file's longer name must not take it.
    alone = {file: all(count[claim] == 1 for claim in claims(name)) for file, name in short.items()}
    for file in sorted(files, key=lambda it: not alone[it]):
        long = relative[file].as_posix()
        name = short[file] if alone[file] and usable(short[file]) else long
        number = 2
        while not usable(name):
            name = f"{long}-{number}"
            number += 1
        taken |= claims(name)
        names[file] = name
    return {file: names[file] for file in files}


def _relative(files: list[Path]) -> dict[Path, Path]:
    """Paths within the files' common folder; only names where there is none, as on two drives."""
    absolute = {file: os.path.abspath(file) for file in files}
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in absolute.values()]) if files else ""
    except ValueError:
        return {file: Path(file.name) for file in files}
    return {file: Path(os.path.relpath(path, common)) for file, path in absolute.items()}
