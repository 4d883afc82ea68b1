"""From pixels of a photograph of any size to those of a picture of a sane size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LEAST, MOST = 800, 1600  # pixels of the longer side; photographs between are drawn as they are
LEAST_SHORT = 160  # of the shorter side: very thin photographs get margins, which have room for labels
MARGIN = 235  # grey


@dataclass(frozen=True)
class Frame:
    """A canvas of ``width`` x ``height`` pixels, with the photograph, resized to ``size`` (width, height), centred."""

    image_size: tuple[int, int]  # width, height of the photograph
    size: tuple[int, int]
    width: int
    height: int

    @classmethod
    def of(cls, image: Tensor, least: int = LEAST, most: int = MOST) -> Frame:
        """For ``image`` (..., H, W); the picture's longer side has ``least`` to ``most`` pixels."""
        height, width = image.shape[-2:]
        longer = max(height, width)
        scale = min(max(longer, least), most) / longer
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return cls((width, height), size, max(size[0], LEAST_SHORT), max(size[1], LEAST_SHORT))

    @property
    def scale(self) -> np.ndarray:
        """Picture pixels for each pixel of the photograph, of x and of y."""
        return np.array(self.size) / np.array(self.image_size)

    @property
    def origin(self) -> tuple[int, int]:
        """Left and top of the photograph in the canvas."""
        return (self.width - self.size[0]) // 2, (self.height - self.size[1]) // 2

    @property
    def inside(self) -> tuple[slice, slice]:
        """The photograph's rows and columns of the canvas."""
        left, top = self.origin
        return slice(top, top + self.size[1]), slice(left, left + self.size[0])

    @property
    def line(self) -> int:
        """Width of lines in pixels."""
        return max(2, round(max(self.width, self.height) / 500))

    def points(self, points: Tensor | np.ndarray) -> np.ndarray:
        """Positions (..., 2) x, y in the photograph, as positions in the canvas."""
        return np.asarray(points, dtype=float) * self.scale + np.array(self.origin)

    def canvas(self, image: Tensor) -> np.ndarray:
        """``image`` (3, H, W), floating point in 0..1, on the canvas: (height, width, 3) uint8."""
        pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        shrinks = self.size[0] < self.image_size[0] or self.size[1] < self.image_size[1]
        method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
        canvas = np.full((self.height, self.width, 3), MARGIN, dtype=np.uint8)
        canvas[self.inside] = np.asarray(Image.fromarray(pixels).resize(self.size, method))
        return canvas

    def mask(self, mask: Tensor, threshold: float) -> np.ndarray:
        """``mask`` (H, W), 0..1, at the photograph's size in the canvas: bool, where it is at least ``threshold``."""
        mask = mask.detach().cpu()
        columns, rows = self.size
        if columns < self.image_size[0] or rows < self.image_size[1]:
            # The nearest pixels: masks of large photographs are many and large.
            return (mask[_nearest(rows, mask.shape[0])][:, _nearest(columns, mask.shape[1])] >= threshold).numpy()
        enlarged = torch.nn.functional.interpolate(mask[None, None].float(), size=(rows, columns), mode="bilinear")
        return (enlarged[0, 0] >= threshold).numpy()


def _nearest(count: int, length: int) -> Tensor:
    return ((torch.arange(count) + 0.5) * (length / count)).long().clamp(max=length - 1)
