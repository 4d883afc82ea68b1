"""torch.compile as a candidate: shapes are constants, and the time of the first call is reported separately."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn


def compiled(model: nn.Module, **options: object) -> nn.Module:
    return torch.compile(model, dynamic=False, options=options or None)


def forget_compiled() -> None:
    """Before each case: it finds no entries of another's, and its sizes do not become symbols."""
    torch._dynamo.reset()


def first_call_seconds(call: Callable[[], object]) -> float:
    """How long ``call`` takes the first time, one run included, with nothing in Inductor's caches on disk."""
    from torch._inductor.utils import fresh_cache

    with fresh_cache():
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
