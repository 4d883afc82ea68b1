"""Colours that can be told apart, one for each object."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Colour = tuple[int, int, int]
COUNT = 48  # then the colours repeat
# matplotlib's ten, of which the greys are left out; further ones are as far as possible from all before.
_FIRST = ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "17becf", "e377c2", "bcbd22", "8c564b")


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of sRGB values (n, 3) in 0..255: distances in it are about as large as they look."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])  # relative to the white point D65
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], axis=1)


@lru_cache(maxsize=1)
def palette() -> tuple[Colour, ...]:
    """The :data:`COUNT` colours, the most distinct ones first."""
    steps = np.linspace(0, 255, 16)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(candidates)
    # Grey, black and white ones would get lost in a photograph.
    vivid = (np.hypot(lab[:, 1], lab[:, 2]) > 35) & (lab[:, 0] > 35) & (lab[:, 0] < 88)
    candidates, lab = candidates[vivid], lab[vivid]
    chosen = np.array([[int(text[it : it + 2], 16) for it in (0, 2, 4)] for text in _FIRST], dtype=float)
    distance = np.linalg.norm(lab[:, None] - _lab(chosen)[None], axis=-1).min(axis=1)
    while len(chosen) < COUNT:
        farthest = int(distance.argmax())
        chosen = np.vstack([chosen, candidates[farthest]])
        distance = np.minimum(distance, np.linalg.norm(lab - lab[farthest], axis=-1))
    return tuple(tuple(round(value) for value in colour) for colour in chosen)


def object_colour(number: int) -> Colour:
    """The colour (red, green, blue in 0..255) of object ``number``, from 0 on."""
    return palette()[number % COUNT]


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has the higher contrast ratio (WCAG 2) on ``background``."""
    value = np.asarray(background) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)
