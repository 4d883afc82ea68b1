"""Checks which tensors can be weights."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # others have no isfinite and no sums


def is_dense(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a dense tensor of real numbers."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()


def is_wrapper(tensor: Tensor) -> bool:
    """Whether ``tensor`` is of a subclass whose values are in other tensors and not in its own storage: a DTensor."""
    if type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__:  # type: ignore[comparison-overlap]
        return False
    try:
        storage = tensor.untyped_storage()
        return storage.device.type != tensor.device.type or storage.data_ptr() == 0
    except (RuntimeError, NotImplementedError):  # a subclass without storage, or one that forbids to ask
        return True


def plain_again(tensor: Tensor) -> str:
    """What makes a plain tensor of a wrapper, for messages."""
    if hasattr(tensor, "full_tensor"):
        return "call .full_tensor() of it, on every process"
    return "call .dequantize() of it" if hasattr(tensor, "tensor_impl") else "make a plain torch.Tensor of it"
