"""The shapes that are measured: deformable convolutions of a ResNet's stages, FrozenBN activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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

    @property
    def gflop(self) -> float:
        """Multiplications and additions of the matrix product alone, in 10^9."""
        pixels = self.batch * self.height * self.width
        return 2 * pixels * 9 * self.in_channels // self.groups * self.out_channels / 1e9


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
    offset_pixels: float = 1.0,
) -> DeformConvTensors:
    """Random arguments, made on ``device``; ``offset_pixels`` is the standard deviation of the offsets."""
    generator = torch.Generator(device).manual_seed(seed)

    def random(*shape: int, factor: float = 1.0) -> Tensor:
        tensor = (torch.randn(*shape, generator=generator, device=device) * factor).to(dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor

    size = (case.height, case.width)
    weight = random(case.out_channels, case.in_channels // case.groups, 3, 3)
    return DeformConvTensors(
        input=random(case.batch, case.in_channels, case.height * case.stride, case.width * case.stride),
        offset=random(case.batch, 18 * case.offset_groups, *size, factor=offset_pixels),
        weight=(weight / (9 * case.in_channels // case.groups) ** 0.5).contiguous(),
        mask=random(case.batch, 9 * case.offset_groups, *size).sigmoid() if case.modulated else None,
        grad=random(case.batch, case.out_channels, *size),
    )


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

# name: (N, C, H, W) of what a block writes at 800x1344.
FROZEN_BN = {
    "C2 800x1344": (1, 256, 200, 336),
    "C3 800x1344": (1, 512, 100, 168),
    "C4 800x1344": (1, 1024, 50, 84),
    "C5 800x1344": (1, 2048, 25, 42),
}
QUICK_FROZEN_BN = ("C4 800x1344",)
