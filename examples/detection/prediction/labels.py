"""Captions beside boxes: readable at any size, inside the picture, apart from each other where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from matplotlib.font_manager import findfont
from PIL import ImageDraw, ImageFont

from detection.prediction.frame import Frame
from detection.prediction.palette import Colour, text_colour

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
LONGEST = 0.4  # of the picture's width, for a label
MANY = 30  # objects, from which on the letters are smaller


@lru_cache(maxsize=16)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans"), size)  # comes with matplotlib


def text_size(frame: Frame, objects: int) -> int:
    """Pixels, relative to the picture: 12 for 800 pixels, 22 for 1600."""
    size = round(max(frame.width, frame.height) / 72)
    return min(max(size - (2 if objects > MANY else 0), 12 if objects <= MANY else 10), 22)


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """``text``, shortened in its middle to ``width`` pixels: the end is the score."""
    for kept in range(len(text), 1, -1):
        shown = text if kept == len(text) else f"{text[: max(1, kept - 6)]}…{text[-min(5, kept - 1) :]}"
        if font.getlength(shown) <= width:
            return shown
    return text[:1]


def _overlap(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def place_label(box: Sequence[float], size: tuple[float, float], frame: Frame, taken: list[Rectangle]) -> Rectangle:
    """Where a label of ``size`` goes: at a corner of its box, inside the canvas, over little of ``taken``."""
    left, top, right, bottom = box
    width, height = size
    corners = [(left, top - height), (left, top), (left, bottom), (right - width, top - height)]
    corners += [(right - width, bottom), (left, bottom - height), (right - width, top)]
    best: tuple[float, Rectangle] | None = None
    for x, y in corners:
        x = min(max(x, 0), frame.width - width)
        y = min(max(y, 0), frame.height - height)
        place = (x, y, x + width, y + height)
        covered = sum(_overlap(place, other) for other in taken)
        if best is None or covered < best[0]:
            best = covered, place
        if covered == 0:
            break
    return best[1]


def draw_labels(
    draw: ImageDraw.ImageDraw, frame: Frame, boxes: np.ndarray, captions: Sequence[str], colours: Sequence[Colour]
) -> list[Rectangle]:
    """One label at each of ``boxes`` (n, 4) x1 y1 x2 y2 in the canvas, the first ones on top; their places."""
    font = font_of(text_size(frame, len(captions)))
    ascent, descent = font.getmetrics()
    padding = max(2, font.size // 5)
    widest = min(frame.width, max(LONGEST * frame.width, 16 * font.size)) - 2 * padding
    texts = [_fitting(" ".join(caption.split()), font, widest) for caption in captions]
    places: list[Rectangle] = []
    for box, text in zip(boxes.tolist(), texts, strict=True):
        size = (int(np.ceil(font.getlength(text))) + 2 * padding, ascent + descent + 2)
        places.append(tuple(round(value) for value in place_label(box, size, frame, places)))
    for (left, top, right, bottom), text, colour in reversed(list(zip(places, texts, colours, strict=True))):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        draw.text((left + padding, top + 1), text, fill=text_colour(colour), font=font)
    return places
