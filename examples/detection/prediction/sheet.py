"""Titled panels of equal size on one matplotlib figure, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detection.prediction.labels import font_of

DPI = 100
GAP = 10  # pixels around panels


class Sheet:
    """Pictures (height, width, 3) uint8 of one size under titles; draw over them on ``axes``, in their pixels."""

    def __init__(self, pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int, below: int = 0):
        """``below``: pixels to leave free below the last row."""
        height, width = pictures[0].shape[:2]
        rows = -(-len(pictures) // columns)
        text = 13 if width * columns >= 700 else 11
        wrapped = [_wrapped(caption, text, width) for caption in titles]
        line = round(1.35 * text)
        title = max(len(lines) for lines in wrapped) * line + text // 2
        self.size = columns * (width + GAP) + GAP, rows * (height + title) + below + GAP
        self.figure = Figure(figsize=(self.size[0] / DPI, self.size[1] / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self.axes: list[Axes] = []
        for number, (picture, lines) in enumerate(zip(pictures, wrapped, strict=True)):
            left = GAP + (number % columns) * (width + GAP)
            top = title + (number // columns) * (height + title)
            axes = self.axes_at(left, top, width, height)
            axes.imshow(picture, interpolation="nearest", extent=(0, width, height, 0), aspect="auto")
            axes.set_axis_off()
            axes.set_autoscale_on(False)  # points outside the photograph must not shrink it
            for up, words in enumerate(reversed(lines)):
                bottom = top - 0.45 * text - up * line
                place = left / self.size[0], 1 - bottom / self.size[1]
                self.figure.text(*place, words, fontsize=text * 72 / DPI, family="DejaVu Sans")
            self.axes.append(axes)

    def axes_at(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes of which the edges are given in pixels from the sheet's left and top."""
        columns, rows = self.size
        return self.figure.add_axes((left / columns, 1 - (top + height) / rows, width / columns, height / rows))

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(path, dpi=DPI)


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """``text`` of ``size`` pixels in lines of at most ``width`` pixels, where its words are no longer than that."""
    font = font_of(size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        # matplotlib's letters are a little wider than Pillow's.
        if lines[-1] and font.getlength(longer) > 0.94 * width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
