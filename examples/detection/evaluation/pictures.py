"""Pictures of the worst images: what is there beside what was detected."""

from __future__ import annotations

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
    crowds. Returns the files written; fewer where fewer images have mistakes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, image_score in enumerate(worst_images(records, count, score=score, overlap=overlap, by=by), 1):
        index = image_score.record.index
        image, _ = dataset.read(index) if hasattr(dataset, "read") else dataset[index]
        name = Path(dataset.describe(index)).name if hasattr(dataset, "describe") else f"sample {index}"
        path = folder / f"worst-{place:02d}-{image_score.record.image_id}.png"
        _draw(path, image.permute(1, 2, 0).cpu().numpy(), image_score, class_names, name)
        paths.append(path)
    return paths


def _draw(path: Path, image: np.ndarray, score: ImageScore, class_names: Sequence[str], name: str) -> None:
    record, matches = score.record, score.matches
    height, width = image.shape[:2]
    rows, columns = (1, 2) if height >= 0.6 * width else (2, 1)  # wide pictures one above the other
    panel = (7.0, min(14.0, max(1.5, 7.0 * height / width)))  # inches
    figure = Figure(figsize=(panel[0] * columns, (panel[1] + 0.3) * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    truth_axes, found_axes = figure.subplots(rows, columns).flat
    figure.suptitle(f"{name}   {score}", fontsize=11)

    truth = record.truth
    colours = np.where(truth.iscrowd != 0, CROWD, RIGHT)
    colours[matches.missed] = MISSED
    captions = [
        class_names[label - 1] + " (crowd)" * bool(crowd)
        for label, crowd in zip(truth.labels, truth.iscrowd, strict=True)
    ]
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
    found_axes.set_title(f"detections: {len(drawn)}; red: false", fontsize=10, loc="left")
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
        axes.text(x1 if left else x2, y1, captions[number], fontsize=letters, color="white", **place)


def _with_masks(image: np.ndarray, objects: Objects, chosen: Sequence[int], colours: np.ndarray) -> np.ndarray:
    """The image (H, W, 3) in 0..1 with the chosen masks over it, decoded one at a time."""
    if objects.masks is None:
        return image
    picture = image.copy()
    for number in chosen:
        inside = coco_mask.decode(objects.masks[number]) > 0
        picture[inside] = 0.6 * picture[inside] + 0.4 * np.array(to_rgb(colours[number]), dtype=picture.dtype)
    return picture
