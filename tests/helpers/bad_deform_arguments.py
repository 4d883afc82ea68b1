"""Good arguments of deform_conv2d, and tables of everything that can be wrong with one of them."""

from __future__ import annotations

import pytest
import torch

ERRORS = (RuntimeError, ValueError, TypeError)


def good(device="cpu", dtype=torch.float32):
    """N=2, C=8, O=6, H=7, W=6, kernel 3x2, 2 groups, 4 offset groups; output 7x6."""
    shapes = {
        "input": (2, 8, 7, 6),
        "offset": (2, 2 * 4 * 6, 7, 7),
        "weight": (6, 4, 3, 2),
        "bias": (6,),
        "mask": (2, 4 * 6, 7, 7),
    }
    arguments = {name: torch.randn(shape, device=device, dtype=dtype) for name, shape in shapes.items()}
    return arguments | {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}


def tensor(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(shape, dtype=dtype, device=device)


# id: (the name that the message must have, what replaces good arguments)
SHAPES = {
    "input 3-D": ("input", {"input": tensor(8, 7, 6)}),
    "input 5-D": ("input", {"input": tensor(2, 8, 7, 6, 1)}),
    "input without channels": ("input", {"input": tensor(2, 0, 7, 6)}),
    "input without rows": ("input", {"input": tensor(2, 8, 0, 6)}),
    "input with a channel less": ("weight", {"input": tensor(2, 7, 7, 6)}),
    "weight 3-D": ("weight", {"weight": tensor(6, 4, 6)}),
    "weight 5-D": ("weight", {"weight": tensor(6, 4, 3, 2, 1)}),
    "weight without outputs": ("weight", {"weight": tensor(0, 4, 3, 2), "bias": tensor(0)}),
    "weight without channels": ("weight", {"weight": tensor(6, 0, 3, 2)}),
    "weight without taps": ("weight", {"weight": tensor(6, 4, 0, 2)}),
    "weight groups not dividing C": ("weight", {"weight": tensor(6, 3, 3, 2)}),
    "weight of more channels than input": ("weight", {"weight": tensor(6, 16, 3, 2)}),
    "weight groups not dividing O": ("weight", {"weight": tensor(5, 4, 3, 2), "bias": tensor(5)}),
    "offset 3-D": ("offset", {"offset": tensor(48, 7, 7)}),
    "offset 5-D": ("offset", {"offset": tensor(2, 48, 7, 7, 1)}),
    "offset without channels": ("offset", {"offset": tensor(2, 0, 7, 7)}),
    "offset channels no multiple of 2 taps": ("offset", {"offset": tensor(2, 47, 7, 7)}),
    "offset channels of half a group": ("offset", {"offset": tensor(2, 42, 7, 7)}),
    "offset with a channel more": ("offset", {"offset": tensor(2, 49, 7, 7)}),
    "offset channels of one group and a half": ("offset", {"offset": tensor(2, 18, 7, 7), "mask": tensor(2, 6, 7, 7)}),
    "offset groups not dividing C": ("offset", {"offset": tensor(2, 36, 7, 7), "mask": tensor(2, 18, 7, 7)}),
    "offset groups above C": ("offset", {"offset": tensor(2, 192, 7, 7), "mask": tensor(2, 96, 7, 7)}),
    "offset of one image": ("offset", {"offset": tensor(1, 48, 7, 7)}),
    "offset of three images": ("offset", {"offset": tensor(3, 48, 7, 7)}),
    "offset of no image": ("offset", {"offset": tensor(0, 48, 7, 7)}),
    "offset with a row less": ("offset", {"offset": tensor(2, 48, 6, 7)}),
    "offset with a row more": ("offset", {"offset": tensor(2, 48, 8, 7)}),
    "offset with a column less": ("offset", {"offset": tensor(2, 48, 7, 6)}),
    "offset with a column more": ("offset", {"offset": tensor(2, 48, 7, 8)}),
    "offset of one pixel": ("offset", {"offset": tensor(2, 48, 1, 1)}),
    "mask 3-D": ("mask", {"mask": tensor(24, 7, 7)}),
    "mask 5-D": ("mask", {"mask": tensor(2, 24, 7, 7, 1)}),
    "mask of another group count": ("mask", {"mask": tensor(2, 12, 7, 7)}),
    "mask with the channels of offset": ("mask", {"mask": tensor(2, 48, 7, 7)}),
    "mask of one image": ("mask", {"mask": tensor(1, 24, 7, 7)}),
    "mask with a row less": ("mask", {"mask": tensor(2, 24, 6, 7)}),
    "mask with a column more": ("mask", {"mask": tensor(2, 24, 7, 8)}),
    "mask of one pixel": ("mask", {"mask": tensor(2, 24, 1, 1)}),
    "bias 2-D": ("bias", {"bias": tensor(6, 1)}),
    "bias 0-D": ("bias", {"bias": tensor()}),
    "bias too short": ("bias", {"bias": tensor(5)}),
    "bias too long": ("bias", {"bias": tensor(7)}),
    "bias of one value": ("bias", {"bias": tensor(1)}),
    "output without rows": ("input", {"input": tensor(2, 8, 1, 6), "padding": (0, 1)}),
    "output without columns": ("input", {"input": tensor(2, 8, 7, 1), "padding": (1, 0)}),
    "output below nothing": ("input", {"dilation": (9, 9)}),
    "everything empty": ("weight|input", {"input": tensor(2, 0, 7, 6), "weight": tensor(6, 0, 3, 2)}),
}
GEOMETRY = {
    f"{name} {value}": (name, {name: value})
    for name, values in {
        "stride": [0, (0, 1), (1, 0), -1, (1, -2), (1,), (1, 1, 1), (), 1.0, (1.5, 1), "1", None],
        "padding": [-1, (-1, 0), (0, -1), (1,), (1, 1, 1), 0.5, "same", None],
        "dilation": [0, (0, 1), (1, 0), -1, (1,), (1, 1, 1), 1.0, None],
    }.items()
    for value in values
}
DTYPES = {
    "input int64": ("input", {"input": tensor(2, 8, 7, 6, dtype=torch.int64)}),
    "input bool": ("input", {"input": tensor(2, 8, 7, 6, dtype=torch.bool)}),
    "input complex": ("input", {"input": tensor(2, 8, 7, 6, dtype=torch.complex64)}),
    "input uint8": ("input", {"input": tensor(2, 8, 7, 6, dtype=torch.uint8)}),
    "weight float64": ("weight", {"weight": tensor(6, 4, 3, 2, dtype=torch.float64)}),
    "weight float16": ("weight", {"weight": tensor(6, 4, 3, 2, dtype=torch.float16)}),
    "bias float64": ("bias", {"bias": tensor(6, dtype=torch.float64)}),
    "bias bfloat16": ("bias", {"bias": tensor(6, dtype=torch.bfloat16)}),
    "offset float64": ("offset", {"offset": tensor(2, 48, 7, 7, dtype=torch.float64)}),
    "offset float16": ("offset", {"offset": tensor(2, 48, 7, 7, dtype=torch.float16)}),
    "offset int64": ("offset", {"offset": tensor(2, 48, 7, 7, dtype=torch.int64)}),
    "mask float64": ("mask", {"mask": tensor(2, 24, 7, 7, dtype=torch.float64)}),
    "mask bfloat16": ("mask", {"mask": tensor(2, 24, 7, 7, dtype=torch.bfloat16)}),
    "mask bool": ("mask", {"mask": tensor(2, 24, 7, 7, dtype=torch.bool)}),
}
# Whatever is named: an error, and no overflow of what is computed from them.
HUGE = [
    {name: value}
    for name in ("stride", "padding", "dilation")
    for value in [(2**40, 1), (1, 2**62), (2**63 - 1, 2**63 - 1), (2**31, 2**31)]
]
NO_TENSORS = {
    f"{name} {value!r}": (name, {name: value})
    for name in ("input", "offset", "weight", "bias", "mask")
    for value in ([[1.0]], 3.0, "tensor", None)
    if not (value is None and name in ("bias", "mask"))
}
DEVICES = {
    f"{name} on meta": (name, {name: tensor(*shape, device="meta")})
    for name, shape in {
        "offset": (2, 48, 7, 7),
        "weight": (6, 4, 3, 2),
        "mask": (2, 24, 7, 7),
        "bias": (6,),
    }.items()
}


def ids(table):
    return [pytest.param(*entry, id=name) for name, entry in table.items()]
