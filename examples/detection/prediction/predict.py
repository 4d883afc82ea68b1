"""Detections for image files: one picture each, and all of them as COCO results."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor, nn

from detection.data.images import read_image
from detection.evaluation.evaluate import results_of
from detection.models.options import ModelOptions
from detection.prediction.detections import confident, draw_detections
from detection.prediction.image_ids import ImageEntry, category_ids_of, numbered, of_annotations
from detection.prediction.inputs import output_names
from detection.prediction.result_files import result_files
from detection.prediction.sampling_picture import draw_sampling, places_of
from detection.wording import counted
from resnet_cuda.sampling import deformable_layer

ENDINGS = {"detections": ".png", "sampling": "-sampling.png"}


def _read(file: Path, entry: ImageEntry, max_size: int) -> Tensor:
    image = read_image(file, entry.size) if entry.size is not None else read_image(file)
    height, width = image.shape[-2:]
    if math.floor(min(height, width) * max_size / max(height, width)) < 1:
        raise ValueError(
            f"{file} is of {width} x {height} pixels; resized to at most max_size = {max_size} it would have no pixels"
        )
    return image


def _detect(model: nn.Module, image: Tensor, file: Path, device: torch.device) -> dict[str, Tensor]:
    """The model's prediction on the CPU; a ValueError with the file's name where it needs too much memory."""
    try:
        return {name: value.cpu() for name, value in model([image.to(device)])[0].items()}
    except (RuntimeError, MemoryError) as error:
        if type(error) is RuntimeError and "allocate memory" not in str(error):  # torch's error of the CPU
            raise
        message = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{file} does not fit into memory: {message}") from error


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

    ``results.json`` is a list in COCO's results format, written at the end, or when a Ctrl-C ends the run, with what
    was done: everything that the model detects, whatever the score, with the data set's category ids, ``bbox`` and, by
    the model, ``segmentation`` or ``keypoints``. An entry is all of one object, unlike the evaluation's files of one
    kind each. It scores with ``COCO(annotations).loadRes(results)``; for AP by object size of masks or keypoints take
    ``of_kind(results, "segm")`` of :mod:`detection.evaluation.results`, as pycocotools takes areas from ``bbox``.

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
        The number of files with an error: unreadable, of another size than the JSON says, too thin, too large for the
        memory, or any other. Each is reported on stderr, and the rest goes on. A file of which only the picture failed
        is among them and in the results, too.

    Raises:
        FileNotFoundError, ValueError: before anything runs, for a JSON that does not list each file once or has other
            categories than the model, and for a layer that is none.
        IsADirectoryError: before anything runs, where results.json or images.json is a folder.
        KeyboardInterrupt: after the results so far were written.
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
    categories = [{"id": it, "name": name} for it, name in zip(category_ids, options.class_names, strict=True)]
    failed = 0
    with result_files(output, categories if annotations is None else None) as results:
        for file in files:
            entry = entries[file]
            try:
                image = _read(file, entry, options.max_size)
                prediction = _detect(model, image, file, device)
                detected = results_of(entry.id, prediction, category_ids)
            except Exception as error:  # whatever is wrong with one file, the others are not to be lost
                _say(f"not used: {_reason(file, error)}", sys.stderr)
                failed += 1
                continue
            if annotations is None:
                detected = [{**result, "file_name": entry.file_name} for result in detected]
            size = {"height": image.shape[-2], "width": image.shape[-1]}
            results.add({"id": entry.id, "file_name": entry.file_name, **size}, detected)
            try:
                found = confident(prediction, threshold)
                if draw:
                    _draw(output, names[file], image, found, model, options, sampling)
                _say(f"{file}: {counted(len(found['scores']), 'object')}")
            except Exception as error:
                _say(f"in the results, but not drawn or printed: {_reason(file, error)}", sys.stderr)
                failed += 1
    return failed


def _reason(file: Path, error: Exception) -> str:
    """One line with the file's name, the error's type and message; where the message names the file, it says all."""
    message = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError)) and str(file) in message:
        return message
    message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{file}: {message}"


def _say(text: str, stream: TextIO | None = None) -> None:
    """Prints a line in which what the stream's encoding lacks is escaped: file names may be any bytes."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
