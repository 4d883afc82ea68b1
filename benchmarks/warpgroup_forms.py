"""Matrices of small integers, whose product float32 holds exactly, for ``warpgroup_product``; on any device."""

from collections.abc import Callable

import torch
from torch import Tensor

# dtype, columns, and whether a row in shared memory holds rows of one k, of the left and of the right operand
Form = tuple[torch.dtype, int, bool, bool]
FORMS: list[Form] = [
    (dtype, columns, side_a, side_b)
    for dtype in (torch.bfloat16, torch.float16)
    for columns in (128, 256)
    for side_a in (False, True)
    for side_b in (False, True)
] + [(torch.float32, columns, False, False) for columns in (128, 256)]  # by wgmma in TF32


def form_name(form: Form) -> str:
    dtype, columns, *sides = form
    majors = ["MN" if side else "K" for side in sides]
    return f"{str(dtype).removeprefix('torch.')}, {columns} columns, a {majors[0]}-major, b {majors[1]}-major"


def operands(dtype: torch.dtype, columns: int, depth: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """``a`` (128, depth), ``b`` (columns, depth): no two rows, and no two columns, are alike."""
    generator = torch.Generator().manual_seed(depth + columns)
    a, b = (torch.randint(-8, 9, (rows, depth), generator=generator) for rows in (128, columns))
    return a.to(device, dtype), b.to(device, dtype)


def largest_error(
    product: Callable[[Tensor, Tensor, bool, bool], Tensor],
    form: Form,
    depth: int,
    device: torch.device | str = "cpu",
) -> float:
    """Of ``product``, the operator, from the exact result; NaN where it has NaN."""
    dtype, columns, side_a, side_b = form
    a, b = operands(dtype, columns, depth, device)
    exact = a.double().cpu() @ b.double().cpu().t()
    return (product(a, b, side_a, side_b).double().cpu() - exact).abs().max().item()


def rounding_error(
    product: Callable[[Tensor, Tensor, bool, bool], Tensor], device: torch.device | str = "cpu"
) -> float:
    """Of float32 that TF32 does not hold, among them halves of its last bit: each is multiplied by 1 and by nothing."""
    depth = 32
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 128, generator=generator)
    values[:, :64] = 1 + (2 * torch.arange(128).reshape(2, 64) + 1) * 2.0**-11
    rows = torch.arange(128)
    ones, given = torch.zeros(128, depth), torch.zeros(2, 128, depth)
    ones[rows, rows % depth] = 1
    given[:, rows, rows % depth] = values
    bits = values.view(torch.int32)
    bits = (bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF
    expected = torch.where((rows % depth)[:, None] == rows % depth, bits.view(torch.float32)[:, :, None], 0)
    left, right = given.to(device)
    ones = ones.to(device)
    found = product(left, ones, False, False), product(ones, right, False, False)
    errors = [found[0].cpu() - expected[0], found[1].cpu() - expected[1].t()]
    return max(error.abs().max().item() for error in errors)
