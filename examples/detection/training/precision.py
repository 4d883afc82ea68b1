"""Mixed precision: the type of the forward pass, and the scale of the loss that float16 needs."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of the forward pass and the loss."""
    dtype = DTYPES[precision]
    if dtype is torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)


def grad_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Of float16, whose small gradients would be 0. Else it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")
