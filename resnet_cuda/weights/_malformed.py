"""The exception of the readers of weight files, and the two limits that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence

# The dimensions of a tensor that torch's loops accept.
MAX_DIMENSIONS = 64

# A file may ask for this much more memory than it is long: arrays are copied once out of their text, and a tensor that
# repeats one value (torch.Tensor.expand) is longer than what is stored of it.
TIMES_THE_FILE = 4
BYTES_ON_TOP = 16 << 20


class MalformedError(ValueError):
    """Content that no library writes. :func:`resnet_cuda.weights.files.read` prefixes the message with the file."""


class Budget:
    """Counts the memory that a file makes a reader allocate, so that a short file cannot allocate many long arrays."""

    def __init__(self, file_size: int) -> None:
        self.left = TIMES_THE_FILE * file_size + BYTES_ON_TOP

    def take(self, size: int) -> None:
        """Raises :exc:`MalformedError` if the file exceeds its budget."""
        self.left -= size
        if self.left < 0:
            raise MalformedError(f"it expands to more than {TIMES_THE_FILE} times its size")


def is_size(value: object) -> bool:
    """Whether ``value`` is a non-negative integer of at most 63 bits; bools are not."""
    return type(value) is int and 0 <= value < 1 << 63


def count(shape: Sequence[object], what: str) -> int:
    """The number of elements of ``shape``.

    Raises:
        MalformedError: if it is no shape, or its elements or strides overflow 63 bits, even if it is empty.
    """
    if not isinstance(shape, (tuple, list)) or len(shape) > MAX_DIMENSIONS or not all(map(is_size, shape)):
        raise MalformedError(f"{what} has the shape {_short(shape)}")
    if math.prod(max(1, int(size)) for size in shape) >= 1 << 59:  # 16 bytes an element, at most
        raise MalformedError(f"{what} has the shape {_short(shape)}, which no memory holds")
    return math.prod(int(size) for size in shape)


def _short(value: object) -> str:
    """``value`` for a message, whatever it is; a damaged file can put anything in the place of a shape."""
    if not isinstance(value, (tuple, list)):
        return type(value).__name__
    return (
        "("
        + ", ".join(str(e)[:20] if type(e) is int and abs(e) < 1 << 64 else type(e).__name__ for e in value[:8])
        + ")"
    )
