"""Augmentation of image and target together, with random numbers from a given generator."""

from __future__ import annotations

import torch
from torch import Tensor

from detection.data.coco_dataset import Sample


def _chance(generator: torch.Generator, probability: float) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def flip_horizontally(sample: Sample, generator: torch.Generator) -> Sample:
    """Mirrors left and right with probability 0.5."""
    return _flip(sample, -1) if _chance(generator, 0.5) else sample


def flip_vertically(sample: Sample, generator: torch.Generator) -> Sample:
    """Mirrors top and bottom with probability 0.5."""
    return _flip(sample, -2) if _chance(generator, 0.5) else sample


def _flip(sample: Sample, dim: int) -> Sample:
    image, target = sample
    size = image.shape[dim]
    low, high = (0, 2) if dim == -1 else (1, 3)
    boxes = target["boxes"].clone()
    boxes[:, low], boxes[:, high] = size - target["boxes"][:, high], size - target["boxes"][:, low]
    return image.flip(dim), {**target, "boxes": boxes, "masks": target["masks"].flip(dim)}


def change_brightness(sample: Sample, generator: torch.Generator) -> Sample:
    """Contrast times 0.7 to 1.3 around the mean, brightness plus or minus 0.1."""
    image, target = sample
    contrast = 0.7 + 0.6 * torch.rand((), generator=generator)
    brightness = 0.2 * torch.rand((), generator=generator) - 0.1
    mean: Tensor = image.mean()
    return ((image - mean) * contrast + mean + brightness).clamp(0, 1), target


TRAINING = (flip_horizontally, change_brightness)
# The coins lie any way up.
TRAINING_COINS = (flip_horizontally, flip_vertically, change_brightness)
