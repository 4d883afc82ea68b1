"""The ways in which a tensor can lie in memory: each function returns the same values with other strides."""

from __future__ import annotations

import torch
from helpers.problems import Arguments
from torch import Tensor

NAN = float("nan")


def in_format(arguments: Arguments, memory_format: torch.memory_format) -> Arguments:
    """All 4-D tensors in ``memory_format``."""
    return {
        name: value.contiguous(memory_format=memory_format) if value is not None and value.dim() == 4 else value
        for name, value in arguments.items()
    }


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def transposed(tensor: Tensor) -> Tensor:
    """The last two dimensions swapped in memory."""
    return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor


def batch_last(tensor: Tensor) -> Tensor:
    """The first dimension is the one with stride 1."""
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0)


def every_second(tensor: Tensor) -> Tensor:
    """A view of every second element of the last dimension of a larger tensor: not dense."""
    return torch.stack((tensor, torch.full_like(tensor, NAN)), dim=-1).flatten(-2)[..., ::2]


def window(tensor: Tensor) -> Tensor:
    """The inner part of a larger tensor, with a storage offset; what is around it is NaN."""
    frame = torch.full([size + 3 for size in tensor.shape], NAN, dtype=tensor.dtype, device=tensor.device)
    return frame[tuple(slice(2, size + 2) for size in tensor.shape)].copy_(tensor)


def channels_last_window(tensor: Tensor) -> Tensor:
    """channels_last strides, but with a gap between the pixels: neither contiguous nor channels_last."""
    if tensor.dim() != 4:
        return window(tensor)
    wide = channels_last(torch.full_like(tensor, NAN).repeat(1, 2, 1, 1))
    return wide[:, 1 : tensor.shape[1] + 1].copy_(tensor)


def misaligned(tensor: Tensor) -> Tensor:
    """Contiguous, but starting one element into its storage, where no vector load is aligned."""
    storage = torch.full((tensor.numel() + 1,), NAN, dtype=tensor.dtype, device=tensor.device)
    return storage[1:].view(tensor.shape).copy_(tensor)


def expanded(tensor: Tensor) -> Tensor:
    """The first image for the whole batch, with stride 0: other values than ``tensor`` has."""
    return tensor[:1].expand(tensor.shape)
