"""Good arguments of deform_conv2d, and tables of everything that can be wrong: (name in the message, replacements)."""

from __future__ import annotations

import torch
from helpers.bad_arguments import tensor, wrong_tensors

GOOD = {
    "input": (2, 8, 7, 6),
    "offset": (2, 2 * 4 * 6, 7, 7),  # 4 offset groups
    "weight": (6, 4, 3, 2),  # 2 groups
    "bias": (6,),
    "mask": (2, 4 * 6, 7, 7),
}


def good(device="cpu", dtype=torch.float32):
    arguments = {name: torch.randn(shape, device=device, dtype=dtype) for name, shape in GOOD.items()}
    return arguments | {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}


def _replacing(table):
    return {label: (name, {name: value}) for label, (name, value) in table.items()}


_SHAPES, _DTYPES, _NO_TENSORS = wrong_tensors(
    GOOD,
    shapes={
        "input": [(8, 7, 6), (2, 8, 7, 6, 1), (2, 0, 7, 6), (2, 8, 0, 6)],
        # rank; no channels, no taps; groups that do not divide C; more channels than input
        "weight": [(6, 4, 6), (6, 4, 3, 2, 1), (6, 0, 3, 2), (6, 4, 0, 2), (6, 3, 3, 2), (6, 16, 3, 2)],
        "offset": [
            *[(48, 7, 7), (2, 48, 7, 7, 1)],
            # channels: none, no multiple of 2 taps, half a group too few, one too many
            *[(2, 0, 7, 7), (2, 47, 7, 7), (2, 42, 7, 7), (2, 49, 7, 7)],
            *[(1, 48, 7, 7), (3, 48, 7, 7), (0, 48, 7, 7)],
            *[(2, 48, 6, 7), (2, 48, 8, 7), (2, 48, 7, 6), (2, 48, 7, 8), (2, 48, 1, 1)],
        ],
        "mask": [
            *[(24, 7, 7), (2, 24, 7, 7, 1)],
            # channels: of another number of groups, those of offset
            *[(2, 12, 7, 7), (2, 48, 7, 7)],
            *[(1, 24, 7, 7), (2, 24, 6, 7), (2, 24, 7, 8), (2, 24, 1, 1)],
        ],
        "bias": [(6, 1), (), (5,), (7,), (1,)],
    },
    dtypes={
        "input": "int64 bool complex64 uint8",
        "weight": "float64 float16",
        "bias": "float64 bfloat16",
        "offset": "float64 float16 int64",
        "mask": "float64 bfloat16 bool",
    },
)
SHAPES = _replacing(_SHAPES) | {
    "input with a channel less": ("weight", {"input": tensor(2, 7, 7, 6)}),
    "weight without outputs": ("weight", {"weight": tensor(0, 4, 3, 2), "bias": tensor(0)}),
    "weight groups not dividing O": ("weight", {"weight": tensor(5, 4, 3, 2), "bias": tensor(5)}),
    "offset channels of one group and a half": ("offset", {"offset": tensor(2, 18, 7, 7), "mask": tensor(2, 6, 7, 7)}),
    "offset groups not dividing C": ("offset", {"offset": tensor(2, 36, 7, 7), "mask": tensor(2, 18, 7, 7)}),
    "offset groups above C": ("offset", {"offset": tensor(2, 192, 7, 7), "mask": tensor(2, 96, 7, 7)}),
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
DTYPES = _replacing(_DTYPES)
NO_TENSORS = {
    label: entry for label, entry in _replacing(_NO_TENSORS).items() if label not in ("bias None", "mask None")
}
DEVICES = {
    f"{name} on meta": (name, {name: tensor(*shape, device="meta")}) for name, shape in GOOD.items() if name != "input"
}
# Whatever is named: an error, and no overflow of what is computed from them.
HUGE = [
    {name: value}
    for name in ("stride", "padding", "dilation")
    for value in [(2**40, 1), (1, 2**62), (2**63 - 1, 2**63 - 1), (2**31, 2**31)]
]
