"""The class of an error for want of GPU memory.

The compiled library hands torch's errors on as text, since the stable ABI has no classes of exceptions. Training loops
tell a batch that is too large by ``torch.OutOfMemoryError``.
"""

from __future__ import annotations

import torch

WORDS = "CUDA out of memory"  # of torch's allocator, and of csrc/common/tensors.h where the allocator's are unknown


def raise_if_out_of_memory(error: RuntimeError) -> None:
    """Raises ``error`` again as a ``torch.OutOfMemoryError`` if it is one by its text; else returns."""
    if WORDS in str(error) and not isinstance(error, torch.OutOfMemoryError):
        raise torch.OutOfMemoryError(str(error)) from None
