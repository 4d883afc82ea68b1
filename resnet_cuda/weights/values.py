"""Checks which tensors can be weights."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # others have no isfinite and no sums


def is_dense(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a dense tensor of real numbers."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()
