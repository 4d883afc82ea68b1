"""The output's gradient as cuda_packed_output_gradient.cuh packs it, emulated, against a permutation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

STRIP_ROWS = 8
PIXELS = CHANNELS = 64  # of a part
MULTIPLE = 128  # of pixels


def in_strips(image: Tensor) -> Tensor:
    """``[O, H, W]`` as ``[H * W, O]``: strips of eight rows, column by column within a strip."""
    strips = [strip.permute(2, 1, 0).reshape(-1, image.size(0)) for strip in image.split(STRIP_ROWS, dim=1)]
    return torch.cat(strips)


def filled_up(tensor: Tensor, dim: int, multiple: int) -> Tensor:
    missing = list(tensor.shape)
    missing[dim] = -tensor.size(dim) % multiple
    return torch.cat([tensor, tensor.new_zeros(missing)], dim)


def swizzled(rows: Tensor) -> Tensor:
    """``[..., 8, 64]`` with the 16-byte chunks of row i at their number exclusive or i."""
    chunks = rows.reshape(*rows.shape[:-1], 8, 8)
    order = torch.arange(8)[:, None] ^ torch.arange(8)
    return torch.stack([chunks[..., i, order[i], :] for i in range(8)], -3).flatten(-2)


def expected_parts(grad: Tensor, groups: int) -> Tensor:
    """``[pixels / 64, channel parts, 8 atoms, 8 pixels, 64 channels]``, each atom swizzled."""
    pixels = filled_up(torch.cat([in_strips(image) for image in grad]), 0, MULTIPLE)
    channels = torch.cat([filled_up(group, 1, CHANNELS) for group in pixels.chunk(groups, dim=1)], 1)
    parts = channels.reshape(-1, PIXELS, channels.size(1) // CHANNELS, CHANNELS).transpose(1, 2)
    return swizzled(parts.reshape(*parts.shape[:2], 8, 8, CHANNELS))


def given(shape: tuple[int, ...], memory_format: torch.memory_format, shift: int = 0) -> Tensor:
    """All values differ in bits, NaN among them; `shift` elements behind an aligned address."""
    count = torch.Size(shape).numel()
    bits = (torch.arange(count) * 40503 % 65521 - 32768).to(torch.int16).view(torch.bfloat16)
    dense = bits.reshape(shape).contiguous(memory_format=memory_format)
    room = torch.empty(count + shift, dtype=torch.bfloat16)
    return torch.as_strided(room, shape, dense.stride(), shift).copy_(dense)


def check(pack, grad: Tensor, groups: int, first: int = 0, images: int | None = None) -> None:
    images = grad.size(0) - first if images is None else images
    found = pack(grad, groups, first, images)
    expected = expected_parts(grad[first : first + images], groups)
    assert found.numel() == expected.numel()
    differ = (found.view(torch.int16) != expected.reshape(-1).view(torch.int16)).sum()
    assert differ == 0, f"{differ} of {found.numel()} elements differ"


FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
# At, below and above 64 channels, 16 bytes of them, 128 pixels, strips of 8 rows; parts across images.
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((1, 64, 8, 16), 1),
        ((1, 1, 1, 1), 1),
        ((2, 63, 9, 7), 1),
        ((3, 65, 7, 9), 1),
        ((1, 128, 17, 8), 1),
        ((1, 72, 8, 17), 1),
        ((70, 16, 1, 2), 2),
        ((2, 264, 3, 5), 3),
        ((2, 136, 10, 13), 2),
    ],
    ids=str,
)
def test_bytes(packed_output_gradient, shape, groups, memory_format):
    check(packed_output_gradient, given(shape, memory_format), groups)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
def test_a_gradient_that_is_not_aligned(packed_output_gradient, memory_format):
    check(packed_output_gradient, given((2, 64, 5, 6), memory_format, shift=1), 1)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(("first", "images"), [(0, 2), (1, 3), (4, 1)])
def test_some_images(packed_output_gradient, first, images, memory_format):
    check(packed_output_gradient, given((5, 40, 6, 7), memory_format), 1, first, images)
