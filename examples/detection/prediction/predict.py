"""Detections for image files: one picture each, and all of them as COCO results."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from detection.data.images import read_image
from detection.evaluation.evaluate import results_of
from detection.models.options import ModelOptions
from detection.prediction.detections import confident, draw_detections
from detection.prediction.image_ids import ImageEntry, category_ids_of, numbered, of_annotations
from detection.prediction.inputs import output_names
from detection.prediction.sampling_picture import draw_sampling, places_of
from resnet_cuda.sampling import deformable_layer

RESULTS, IMAGES = "results.json", "images.json"
ENDINGS = {"detections": ".png", "sampling": "-sampling.png"}


class _ListFile:
    """A JSON list that is written entry by entry, so that it need not fit into memory."""

    def __init__(self, file: TextIO):
        self.file, self.first = file, True

    def write(self, entries: Iterable[dict[str, Any]]) -> None:
        for entry in entries:
            self.file.write(("[\n" if self.first else ",\n") + json.dumps(entry, allow_nan=False))
            self.first = False

    def finish(self) -> None:
        self.file.write("[]\n" if self.first else "\n]\n")


@contextmanager
def _written_at_once(path: Path) -> Iterator[TextIO]:
    """A file that replaces ``path`` at the end, or is removed after an error."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read(file: Path, entry: ImageEntry, max_size: int) -> Tensor:
    image = read_image(file, entry.size) if entry.size is not None else read_image(file)
    height, width = image.shape[-2:]
    if math.floor(min(height, width) * max_size / max(height, width)) < 1:
        raise ValueError(
            f"{file} is of {width} x {height} pixels; resized to at most max_size = {max_size} it would have no pixels"
        )
    return image


def _detect(
    model: nn.Module, image: Tensor, file: Path, entry: ImageEntry, category_ids: list[int], device: torch.device
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The model's prediction and its COCO results; where these cannot be had, a ValueError with the file's name."""
    try:
        prediction = {name: value.cpu() for name, value in model([image.to(device)])[0].items()}
    except (RuntimeError, MemoryError) as error:
        if type(error) is RuntimeError and "allocate memory" not in str(error):  # torch's error of the CPU
            raise
        raise ValueError(f"{file} does not fit into memory: {str(error).splitlines()[0]}") from error
    try:
        return prediction, results_of(entry.id, prediction, category_ids)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _draw(
    output: Path,
    name: str,
    image: Tensor,
    found: dict[str, Tensor],
    model: nn.Module,
    options: ModelOptions,
    sampling: str | None,
) -> None:
    draw_detections(output / (name + ENDINGS["detections"]), image, found, options.class_names, options.keypoint_names)
    if sampling is not None:
        draw_sampling(output / (name + ENDINGS["sampling"]), image, model, sampling, places_of(found, image))


@torch.no_grad()
def predict_files(
    model: nn.Module,
    options: ModelOptions,
    files: Sequence[Path],
    output: Path,
    threshold: float,
    device: torch.device,
    *,
    annotations: Path | None = None,
    images: Path | None = None,
    sampling: str | None = None,
    draw: bool = True,
) -> int:
    """Detects the objects in ``files``, draws them, and writes all of them to ``output``/results.json.

    ``results.json`` is a list in COCO's results format, written at the end: everything that the model detects, whatever
    the score, with the data set's category ids, ``bbox`` and, by the model, ``segmentation`` or ``keypoints``. It
    scores with ``COCO(annotations).loadRes(results)``; for mask AP by object size take ``bbox`` out of it first, of
    which pycocotools would take the areas.

    Args:
        model: a torchvision detector, on ``device``.
        options: the model's; with class names, category ids, keypoint names and max_size.
        files: image files, each once.
        output: the folder; for pictures see :func:`~detection.prediction.inputs.output_names`.
        threshold: the lowest score that is drawn and counted in what is printed.
        device: where the model runs.
        annotations: a JSON in COCO's format that lists the files: results get its image ids, and EXIF orientation is
            applied where its sizes say so. Without it EXIF orientation is always applied, and ids are 1, 2, ... in the
            order of ``files``; each result then has a ``file_name``, too, and ``output``/images.json lists what was
            read with sizes and categories, as a COCO JSON without annotations.
        images: the folder that the JSON's file names are relative to; see
            :func:`~detection.prediction.image_ids.of_annotations`.
        sampling: the name of a deformable layer: where it samples is drawn as NAME-sampling.png.
        draw: False writes results only.

    Returns:
        The number of files that could not be used: unreadable, of another size than the JSON says, too thin, too large
        for the memory. Each is reported on stderr, and the rest goes on.

    Raises:
        FileNotFoundError, ValueError: before anything runs, for a JSON that does not list each file once or has other
            categories than the model, and for a layer that is none.
    """
    files = list(dict.fromkeys(files))
    if annotations is not None:
        entries = of_annotations(files, Path(annotations), images, options)
    else:
        entries = numbered(files)
    if sampling is not None:
        deformable_layer(model, sampling)
    model.eval()
    category_ids = category_ids_of(options)
    names = output_names(files, output, tuple(ENDINGS.values()))
    output.mkdir(parents=True, exist_ok=True)
    listed, failed = [], 0
    with _written_at_once(output / RESULTS) as text:
        results = _ListFile(text)
        for file in files:
            entry = entries[file]
            try:
                image = _read(file, entry, options.max_size)
                prediction, detected = _detect(model, image, file, entry, category_ids, device)
            except (ValueError, OSError) as error:
                print(f"not used: {error}", file=sys.stderr)
                failed += 1
                continue
            if annotations is None:
                detected = [{**result, "file_name": entry.file_name} for result in detected]
                size = {"height": image.shape[-2], "width": image.shape[-1]}
                listed.append({"id": entry.id, "file_name": entry.file_name, **size})
            results.write(detected)
            found = confident(prediction, threshold)
            if draw:
                _draw(output, names[file], image, found, model, options, sampling)
            print(f"{file}: {len(found['scores'])} objects")
        results.finish()
    if annotations is None:
        categories = [{"id": it, "name": name} for it, name in zip(category_ids, options.class_names, strict=True)]
        with _written_at_once(output / IMAGES) as text:
            json.dump({"images": listed, "annotations": [], "categories": categories}, text)
    return failed
