"""The deformable layers of a ResNet at 800x1344, and their random arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.cases import DeformConvCase, DeformConvTensors, make_deform_conv

OFFSET_PIXELS = 2.0
UNIFORM = "uniform"


@dataclass(frozen=True)
class Layer:
    """The stage and the batch that predictions go by, and the case itself."""

    stage: str
    batch: int
    case: DeformConvCase

    def __str__(self) -> str:
        return f"{self.stage}, batch {self.batch}"


def layer(stage: str, batch: int, quick: bool = False) -> Layer:
    """3x3, padding 1, v2; with ``quick`` a few pixels and channels under the same name."""
    channels, height, width = {"C3": (128, 100, 168), "C4": (256, 50, 84), "C5": (512, 25, 42)}[stage]
    if quick:
        channels, height, width = 8, 6, 7
    return Layer(stage, batch, DeformConvCase(f"{stage}, batch {batch}", batch, channels, channels, height, width))


def make_sets(
    layer: Layer, device: torch.device, count: int, offset_pixels: float | str = OFFSET_PIXELS
) -> list[DeformConvTensors]:
    """float32, NCHW. Offsets hold values of bfloat16, so that all dtypes sample at the same places.

    ``offset_pixels``: the offsets' standard deviation; "uniform": positions anywhere in the image, all equally likely.
    """
    sets = []
    for seed in range(count):
        factor = 0.0 if offset_pixels == UNIFORM else offset_pixels
        made = make_deform_conv(layer.case, device, torch.float32, False, seed, factor)
        offset = _uniform(layer.case, made.offset, seed) if offset_pixels == UNIFORM else made.offset
        sets.append(replace(made, offset=offset.bfloat16().float()))
    return sets


def _uniform(case: DeformConvCase, like: Tensor, seed: int) -> Tensor:
    """Offsets (N, 18, Ho, Wo) to positions that are uniform in the image, but for the tap's own pixel."""
    generator = torch.Generator(like.device).manual_seed(1000 + seed)
    place = torch.rand(case.batch, 9, 2, case.height, case.width, generator=generator, device=like.device)
    rows = torch.arange(case.height, device=like.device).reshape(-1, 1).expand(case.height, case.width)
    columns = torch.arange(case.width, device=like.device).expand(case.height, case.width)
    size = torch.tensor([case.height, case.width], device=like.device).reshape(2, 1, 1)
    return (place * size - torch.stack((rows, columns))).flatten(1, 2)


def bytes_moved(layer: Layer, element_bytes: int) -> int:
    """Arguments and result of a forward, each once."""
    case = layer.case
    pixels = case.batch * case.height * case.width
    return element_bytes * (
        pixels * (case.in_channels + case.out_channels + 27) + 9 * case.in_channels * case.out_channels
    )
