"""The references compute in float32 (float64) under any autocast."""

from __future__ import annotations

import contextlib

import torch

# Evaluated at import: Dynamo cannot trace is_autocast_available before torch 2.12.
_AUTOCAST_DEVICES = frozenset(
    device_type
    for device_type in ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "maia", "xla", "ipu", "privateuseone")
    if torch.amp.is_autocast_available(device_type)
)


def in_full_precision(device_type: str) -> contextlib.AbstractContextManager:
    """Disables autocast, which would use 16 bits for matrix products; the operator has already cast its arguments."""
    if device_type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return contextlib.nullcontext()
