"""The files of detections: written image by image, and in their place at the end, also of a run that was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from detection.atomic_write import replacing

RESULTS, IMAGES = "results.json", "images.json"


class ResultFile:
    """A JSON list that is written image by image, so that it need not fit into memory."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._images: list[dict[str, Any]] = []
        # Whole images, and bytes of them: set at once, so that a Ctrl-C within ``add`` leaves the list as it was.
        self._done = 0, 0

    @property
    def images(self) -> list[dict[str, Any]]:
        """The entries of the images that were added."""
        return self._images[: self._done[0]]

    def add(self, image: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
        """One image's results; ``image`` is its entry in a COCO JSON."""
        count, end = self._done
        lines = ",\n".join(json.dumps(result, allow_nan=False) for result in results)
        written = ((",\n" if end else "[\n") + lines).encode() if lines else b""
        self._images.append(image)
        self._file.write(written)
        self._done = count + 1, end + len(written)

    def finish(self) -> None:
        end = self._done[1]
        self._file.seek(end)  # before what an interrupted ``add`` wrote
        self._file.truncate()
        self._file.write(b"\n]\n" if end else b"[]\n")


@contextmanager
def result_files(output: Path, categories: Sequence[dict[str, Any]] | None = None) -> Iterator[ResultFile]:
    """``output``/results.json and, where ``categories`` are given, images.json, a COCO JSON without annotations.

    Both are written under other names, and replace earlier files when the block is left. Where that is by an exception,
    KeyboardInterrupt as well, they hold what was added until then; earlier files stay where that is nothing.

    Raises:
        IsADirectoryError: before the block, where one of these names is a folder's.
    """
    for name in (RESULTS,) if categories is None else (RESULTS, IMAGES):
        if (output / name).is_dir():
            raise IsADirectoryError(f"{output / name} is a folder; a file of this name is to be written there")
    stopped = None
    with replacing(output / RESULTS) as file:
        results = ResultFile(file)
        try:
            yield results
        except BaseException as error:
            if not results.images:
                raise
            stopped = error
        results.finish()
    if categories is not None:
        with replacing(output / IMAGES) as file:
            content = {"images": results.images, "annotations": [], "categories": list(categories)}
            file.write(json.dumps(content).encode())
    if stopped is not None:
        raise stopped
