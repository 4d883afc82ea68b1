"""Objects over a photograph: masks, boxes, keypoints and labels, each object in a colour of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from detection.evaluation.evaluate import MASK_THRESHOLD
from detection.prediction.frame import Frame
from detection.prediction.labels import draw_labels
from detection.prediction.palette import Colour, object_colour
from detection.prediction.skeleton import lines_between

OPACITY = 0.4  # of masks


def confident(prediction: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """The detections whose score is at least ``threshold``, on the CPU."""
    keep = prediction["scores"] >= threshold
    return {name: value[keep].cpu() for name, value in prediction.items()}


def captions_of(objects: dict[str, Any], class_names: Sequence[str]) -> list[str]:
    """Class names, with the scores where there are: of a prediction or of a target."""
    names = [class_names[label - 1] for label in objects["labels"].tolist()]
    if "scores" not in objects:
        return names
    return [f"{name} {score:.2f}" for name, score in zip(names, objects["scores"].tolist(), strict=True)]


def _eroded(mask: np.ndarray, pixels: int) -> np.ndarray:
    """What is left of ``mask`` (H, W) bool without a border of ``pixels``; the picture's edge is no border."""
    padded = torch.from_numpy(~mask)[None, None].float()
    grown = torch.nn.functional.max_pool2d(padded, 2 * pixels + 1, stride=1, padding=pixels)
    return (grown[0, 0] == 0).numpy()


def _blend(canvas: np.ndarray, frame: Frame, mask: np.ndarray, colour: Colour) -> None:
    """``mask`` in ``colour`` over the photograph's part of the canvas, with an outline."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    mask = mask[window]
    outline = mask & ~_eroded(np.pad(mask, frame.line), frame.line)[frame.line : -frame.line, frame.line : -frame.line]
    part = canvas[frame.inside][window]  # a view: writing to it writes to the canvas
    part[mask] = ((1 - OPACITY) * part[mask] + OPACITY * np.array(colour)).astype(np.uint8)
    part[outline] = colour


def _draw_keypoints(
    draw: ImageDraw.ImageDraw, frame: Frame, keypoints: Tensor, lines: Sequence[tuple[int, int]], colour: Colour
) -> None:
    places = frame.points(keypoints[:, :2])
    seen = (keypoints[:, 2] > 0).tolist()
    for start, end in lines:
        if seen[start] and seen[end]:
            draw.line((*places[start], *places[end]), fill=colour, width=frame.line + 1)
    radius = frame.line + 2
    for (x, y), visible in zip(places.tolist(), seen, strict=True):
        if visible:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")


def with_objects(
    image: Tensor,
    objects: dict[str, Any],
    captions: Sequence[str] | None = None,
    *,
    frame: Frame | None = None,
    colours: Sequence[Colour] | None = None,
    keypoint_names: Sequence[str] = (),
    boxes: bool = True,
) -> np.ndarray:
    """The photograph with objects over it: (height, width, 3) uint8.

    Args:
        image: (3, H, W), floating point in 0..1.
        objects: ``boxes`` (n, 4) x1 y1 x2 y2 in pixels of the image; where there are ``masks`` (n, H, W) or
            (n, 1, H, W) in 0..1, and ``keypoints`` (n, K, 3) x, y, visible where above 0. The first are on top.
        captions: one text each; None draws none.
        frame: where the photograph lies in the picture; of ``Frame.of(image)`` by default.
        colours: one each; the palette's by default.
        keypoint_names: where they are COCO's 17, the skeleton is drawn.
        boxes: False leaves out the boxes' lines.
    """
    frame = frame or Frame.of(image)
    count = len(objects["boxes"])
    colours = [object_colour(it) for it in range(count)] if colours is None else list(colours)
    canvas = frame.canvas(image)
    masks = objects.get("masks")
    for number in reversed(range(count if masks is not None else 0)):
        mask = masks[number].reshape(masks.shape[-2:])
        _blend(canvas, frame, frame.mask(mask, MASK_THRESHOLD), colours[number])
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    corners = frame.points(objects["boxes"].detach().cpu().reshape(-1, 2, 2)).reshape(-1, 4)
    corners = np.nan_to_num(corners).clip(0, np.array([frame.width, frame.height] * 2) - 1)
    lines = lines_between(keypoint_names)
    for number in reversed(range(count)):
        if boxes:
            left, top, right, bottom = corners[number].round().astype(int).tolist()
            draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colours[number], width=frame.line)
        if objects.get("keypoints") is not None:
            _draw_keypoints(draw, frame, objects["keypoints"][number].detach().cpu(), lines, colours[number])
    if captions is not None:
        draw_labels(draw, frame, corners, captions, colours)
    return np.asarray(picture)


def draw_detections(
    path: Path,
    image: Tensor,
    prediction: dict[str, Tensor],
    class_names: Sequence[str],
    keypoint_names: Sequence[str] = (),
) -> None:
    """The photograph with the detections over it, as a picture of at most 1600 pixels.

    Works for detectors of boxes, masks or keypoints: what ``prediction`` has is drawn, see :func:`with_objects`.
    """
    captions = captions_of(prediction, class_names)
    picture = with_objects(image, prediction, captions, keypoint_names=keypoint_names)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
