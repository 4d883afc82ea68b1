"""Which classes a detector takes for which: the confusion matrix, and its picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from detection.evaluation.matching import OVERLAP, SCORE, match
from detection.evaluation.records import Record

MOST_CLASSES = 80  # in the picture
BACKGROUND = "background"
KIND_OF_OVERLAP = {"bbox": "box", "segm": "mask"}


def confusion_matrix(
    records: Iterable[Record], classes: int, *, score: float = SCORE, overlap: float = OVERLAP, by: str = "bbox"
) -> np.ndarray:
    """Counts (C + 1, C + 1) int64: rows are the true classes, columns the predicted ones, background last in both.

    Detections from ``score`` on are matched with true objects whatever their classes, by overlap ("bbox" or "segm").
    The last column counts objects that were missed, the last row detections where there is nothing; crowds and
    ignored regions count in neither.
    """
    matrix = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for record in records:
        matches = match(record, score=score, overlap=overlap, by=by, same_class=False)
        truth, found = record.truth.labels - 1, record.detections.labels - 1
        for true, detection in matches.pairs:
            matrix[truth[true], found[detection]] += 1
        for true in matches.missed:
            matrix[truth[true], classes] += 1
        for detection in matches.false:
            matrix[classes, found[detection]] += 1
    return matrix


def draw_confusion(
    path: Path,
    matrix: np.ndarray,
    class_names: Sequence[str],
    *,
    score: float = SCORE,
    overlap: float = OVERLAP,
    by: str = "bbox",
) -> None:
    """The matrix as a picture: numbers are counts, colours the share of the row (its square root, so that rare
    mistakes are seen).

    Of more than 80 classes, those 80 with the most mistakes are drawn.
    """
    classes = len(class_names)
    chosen = _most_confused(matrix, MOST_CLASSES)
    note = "number: objects; colour: share of the row"
    if len(chosen) < classes:
        note += f"\nthe {len(chosen)} of {classes} classes with the most mistakes"
    rows = [*chosen, classes]
    names = [*(_shortened(class_names[index]) for index in chosen), BACKGROUND]
    counts = matrix[np.ix_(rows, rows)]
    shares = counts / np.maximum(matrix[rows].sum(axis=1, keepdims=True), 1)

    cell = 0.6 if len(rows) <= 12 else 0.3  # inches
    side = max(6.0, cell * len(rows) + 2.5)
    figure = Figure(figsize=(side, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    letters = 9 if len(rows) <= 12 else 7
    ticks = range(len(rows))
    axes.set_xticks(ticks, names, rotation=90, fontsize=letters + 1, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=letters + 1, parse_math=False)
    axes.xaxis.tick_top()
    axes.set_xticks([tick - 0.5 for tick in ticks], minor=True)
    axes.set_yticks([tick - 0.5 for tick in ticks], minor=True)
    axes.grid(which="minor", color="#dddddd", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.3 else "black"
        text = _count(int(counts[row, column]))
        axes.text(column, row, text, ha="center", va="center", fontsize=letters, color=colour)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted class", fontsize=letters + 3)
    axes.set_ylabel("true class", fontsize=letters + 3)
    figure.supxlabel(note, fontsize=letters + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _most_confused(matrix: np.ndarray, most: int) -> list[int]:
    """The classes with the most mistakes (as truth or prediction), in the order of labels."""
    mistakes = (matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal())[:-1]
    return sorted(np.argsort(-mistakes, kind="stable")[:most].tolist())


def _count(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _shortened(name: str) -> str:
    return name if len(name) <= 24 else name[:21] + "..."
