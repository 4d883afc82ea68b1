"""Pictures of the worst images: what is there beside what was detected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from detection.data.custom import describe, read_sample
from detection.evaluation.confusion import KIND_OF_OVERLAP
from detection.evaluation.matching import OVERLAP, SCORE
from detection.evaluation.records import Objects, Record
from detection.evaluation.worst import ImageScore, worst_images

RIGHT, MISSED, FALSE, CROWD = "#2ca02c", "#ff7f0e", "#d62728", "#7f7f7f"


def draw_worst(
    folder: Path,
    dataset: Dataset,
    records: Iterable[Record],
    class_names: Sequence[str],
    *,
    count: int = 12,
    score: float = SCORE,
    overlap: float = OVERLAP,
    by: str = "bbox",
) -> list[Path]:
    """Draws the ``count`` worst images (see :func:`worst_images`) into ``folder``: worst-01-IMAGEID.png and so on.

    Truth and detections lie side by side: green what was found, orange what was missed, red what is not there, grey
    crowds and ignored regions. In an image id that is a text, what may have a meaning in a file name becomes ``_``.
    Returns the files written; fewer where fewer images have mistakes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, image_score in enumerate(worst_images(records, count, score=score, overlap=overlap, by=by), 1):
        index = image_score.record.index
        image, _ = read_sample(dataset, index)
        name = Path(describe(dataset, index)).name
        path = folder / f"worst-{place:02d}-{_file_name(image_score.record.image_id)}.png"
        rule = f"score >= {score:g}; green: {KIND_OF_OVERLAP[by]} IoU >= {overlap:g}, red: false"
        _draw(path, image.permute(1, 2, 0).cpu().numpy(), image_score, class_names, name, rule)
        paths.append(path)
    return paths


def _printable(text: str) -> str:
    """As matplotlib takes it: bytes of a file name that are no UTF-8 are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _file_name(image_id: int | str) -> str:
    """Without separators, colons and the like, and short enough for any file system (60 characters of 4 bytes)."""
    return re.sub(r"[^\w.-]", "_", str(image_id))[:60]


def _draw(path: Path, image: np.ndarray, score: ImageScore, class_names: Sequence[str], name: str, rule: str) -> None:
    record, matches = score.record, score.matches
    height, width = image.shape[:2]
    rows, columns = (1, 2) if height >= 0.6 * width else (2, 1)  # wide pictures one above the other
    panel = (7.0, min(14.0, max(1.5, 7.0 * height / width)))  # inches
    figure = Figure(figsize=(panel[0] * columns, (panel[1] + 0.3) * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    truth_axes, found_axes = figure.subplots(rows, columns).flat
    figure.suptitle(f"{_printable(name)}   {score}", fontsize=11, parse_math=False)

    truth = record.truth
    colours = np.where(truth.iscrowd != 0, CROWD, RIGHT)
    colours[matches.missed] = MISSED
    single = [" (crowd)" if crowd else "" for crowd in truth.iscrowd]
    notes = single[: len(truth) - record.ignored] + [" (ignored)"] * record.ignored
    captions = [class_names[label - 1] + note for label, note in zip(truth.labels, notes, strict=True)]
    _show(truth_axes, image, truth, range(len(truth)), colours, captions)
    truth_axes.set_title(f"truth: {score.found + score.missed} objects; orange: missed", fontsize=10, loc="left")

    found = record.detections
    right = {detection for _, detection in matches.pairs}
    drawn = sorted([*right, *matches.false])
    colours = np.array([RIGHT if it in right else FALSE for it in range(len(found))])
    captions = [
        f"{class_names[label - 1]} {value:.2f}" for label, value in zip(found.labels, found.scores, strict=True)
    ]
    _show(found_axes, image, found, drawn, colours, captions)
    found_axes.set_title(f"{len(drawn)} detections, {rule}", fontsize=10, loc="left")
    figure.savefig(path, dpi=100)


def _show(
    axes: Axes,
    image: np.ndarray,
    objects: Objects,
    chosen: Sequence[int],
    colours: np.ndarray,
    captions: list[str],
) -> None:
    axes.imshow(_with_masks(image, objects, chosen, colours))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    letters = 9 if len(chosen) <= 15 else 6
    for number in chosen:
        colour = colours[number]
        x1, y1, x2, y2 = objects.boxes[number]
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.8))
        if objects.keypoints is not None:
            points = objects.keypoints[number]
            seen = points[points[:, 2] > 0]
            axes.scatter(seen[:, 0], seen[:, 1], s=18, color=colour, edgecolors="white", linewidths=0.6)
        box = {"facecolor": colour, "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
        above = y1 > 0.05 * image.shape[0]  # else the caption would leave the picture
        left = x1 < 0.75 * image.shape[1]
        place = {"va": "bottom" if above else "top", "ha": "left" if left else "right", "bbox": box, "clip_on": True}
        text = _printable(captions[number])
        axes.text(x1 if left else x2, y1, text, fontsize=letters, color="white", parse_math=False, **place)


def _with_masks(image: np.ndarray, objects: Objects, chosen: Sequence[int], colours: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) in 0..1 with the chosen masks over it, decoded one at a time."""
    if objects.masks is None:
        return image
    picture = image.copy()
    for number in chosen:
        inside = coco_mask.decode(objects.masks[number]) > 0
        picture[inside] = 0.6 * picture[inside] + 0.4 * np.array(to_rgb(colours[number]), dtype=picture.dtype)
    return picture
