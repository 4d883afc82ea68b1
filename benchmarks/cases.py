"""The shapes that are measured: deformable convolutions of a ResNet's stages, FrozenBN activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

UNIFORM = "uniform"


@dataclass(frozen=True)
class DeformConvCase:
    """One 3x3 deformable convolution with padding 1 as a backbone has it; sizes are of the output."""

    name: str
    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int = 1
    groups: int = 1
    offset_groups: int = 1
    modulated: bool = True


@dataclass
class DeformConvTensors:
    """Arguments of one case."""

    input: Tensor
    offset: Tensor
    weight: Tensor
    mask: Tensor | None
    grad: Tensor


def make_deform_conv(
    case: DeformConvCase,
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
    seed: int = 0,
    offset_pixels: float | str = 1.0,
) -> DeformConvTensors:
    """Random arguments, made on ``device``.

    ``offset_pixels`` is the offsets' standard deviation; with "uniform" all sampling positions in the image are equally
    likely.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, factor: float = 1.0) -> Tensor:
        tensor = (torch.randn(*shape, generator=generator, device=device) * factor).to(dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor

    size = (case.height, case.width)
    weight = random(case.out_channels, case.in_channels // case.groups, 3, 3)
    uniform = offset_pixels == UNIFORM
    tensors = DeformConvTensors(
        input=random(case.batch, case.in_channels, case.height * case.stride, case.width * case.stride),
        offset=random(case.batch, 18 * case.offset_groups, *size, factor=0.0 if uniform else offset_pixels),
        weight=(weight / (9 * case.in_channels // case.groups) ** 0.5).contiguous(),
        mask=random(case.batch, 9 * case.offset_groups, *size).sigmoid() if case.modulated else None,
        grad=random(case.batch, case.out_channels, *size),
    )
    if uniform:
        tensors.offset = _uniform_offsets(case, device, seed).to(dtype)
    return tensors


def _uniform_offsets(case: DeformConvCase, device: torch.device, seed: int) -> Tensor:
    """Offsets (N, 18 * offset groups, Ho, Wo) from each output pixel to uniform positions in the image, stride 1."""
    generator = torch.Generator(device).manual_seed(1000 + seed)
    size = torch.tensor([case.height, case.width], device=device).reshape(2, 1, 1)
    shape = (case.batch, 9 * case.offset_groups, 2, case.height, case.width)
    position = torch.rand(*shape, generator=generator, device=device) * size
    pixel = torch.stack(torch.meshgrid(*(torch.arange(n, device=device) for n in shape[-2:]), indexing="ij"))
    return (position - pixel).flatten(1, 2)


# An image of 800x1344 (maskrcnn-benchmark's usual size) and one of 480x640, stages C3 to C5.
DEFORM_CONV = (
    DeformConvCase("C3 800x1344", 1, 128, 128, 100, 168),
    DeformConvCase("C4 800x1344", 1, 256, 256, 50, 84),
    DeformConvCase("C5 800x1344", 1, 512, 512, 25, 42),
    DeformConvCase("C3 480x640", 1, 128, 128, 60, 80),
    DeformConvCase("C4 480x640", 1, 256, 256, 30, 40),
    DeformConvCase("C5 480x640", 1, 512, 512, 15, 20),
    DeformConvCase("C4 v1", 1, 256, 256, 50, 84, modulated=False),
    DeformConvCase("C4 stride 2", 1, 256, 256, 50, 84, stride=2),
    DeformConvCase("C4 4 offset groups", 1, 256, 256, 50, 84, offset_groups=4),
    DeformConvCase("C4 32 groups (ResNeXt)", 1, 512, 512, 50, 84, groups=32),
    DeformConvCase("C4 batch 2", 2, 256, 256, 50, 84),
)
QUICK = ("C4 480x640", "C5 480x640")
SCALING = DEFORM_CONV[:3]

# 3x3 layers at 800x1344 by stage: channels, height, width.
STAGES = {"C3": (128, 100, 168), "C4": (256, 50, 84), "C5": (512, 25, 42)}

# name: (N, C, H, W) of what a block writes at 800x1344.
FROZEN_BN = {
    "C2 800x1344": (1, 256, 200, 336),
    "C3 800x1344": (1, 512, 100, 168),
    "C4 800x1344": (1, 1024, 50, 84),
    "C5 800x1344": (1, 2048, 25, 42),
}
QUICK_FROZEN_BN = ("C4 800x1344",)


def layer(stage: str, batch: int, quick: bool = False) -> DeformConvCase:
    """A stage's 3x3 layer at 800x1344, v2; with ``quick`` a few pixels and channels under the same name."""
    channels, height, width = (8, 6, 7) if quick else STAGES[stage]
    return DeformConvCase(f"{stage}, batch {batch}", batch, channels, channels, height, width)
