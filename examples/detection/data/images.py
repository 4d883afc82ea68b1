"""Image files as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def read_image(path: Path) -> Tensor:
    """(3, H, W), float32 in 0..1, RGB. 16-bit grey images keep all their bits.

    Raises:
        ValueError: naming the file, where Pillow cannot read it or its pixels have no fixed range (32-bit, float).
    """
    try:
        with Image.open(path) as file:
            # Pillow would clip 16-bit grey at 255. It opens 16-bit PGM files in mode I, before Pillow 11 PNG too.
            if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
                return torch.from_numpy(np.asarray(file).astype(np.float32) / 65535).repeat(3, 1, 1)
            if file.mode in ("I", "F"):
                raise ValueError(f"its pixels are of Pillow's mode {file.mode}; they must be 8-bit or 16-bit")
            pixels = np.asarray(file.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
