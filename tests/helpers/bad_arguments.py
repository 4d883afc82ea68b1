"""What the tables of bad arguments are written in. An entry is (the name that the message must have, what is wrong)."""

from __future__ import annotations

import pytest
import torch

ERRORS = (RuntimeError, ValueError, TypeError)
NO_TENSORS = ([1.0], 2.0, "tensor", None)


def tensor(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(shape, dtype=dtype, device=device)


def ids(table):
    return [pytest.param(*entry, id=name) for name, entry in table.items()]


def wrong_tensors(good, shapes, dtypes):
    """One tensor at a time: of a wrong shape, of a wrong dtype (and the good shape), and none at all.

    Args:
        good: the good shapes by name.
        shapes: the wrong shapes by name.
        dtypes: the wrong dtypes by name, without ``torch.``.

    Returns:
        three tables of (name, tensor).
    """
    wrong_shapes = {f"{name} {shape}": (name, tensor(*shape)) for name in shapes for shape in shapes[name]}
    wrong_dtypes = {
        f"{name} {dtype}": (name, tensor(*good[name], dtype=getattr(torch, dtype)))
        for name in dtypes
        for dtype in dtypes[name].split()
    }
    no_tensors = {f"{name} {value!r}": (name, value) for name in good for value in NO_TENSORS}
    return wrong_shapes, wrong_dtypes, no_tensors


def moved(arguments, device):
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}
