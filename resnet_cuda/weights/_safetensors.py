"""The safetensors format: the length of a header in 8 bytes, the header in JSON, the values."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import torch

from resnet_cuda.weights._malformed import MalformedError, count, is_size
from resnet_cuda.weights._zip_records import read_bytes

# The format allows 100 MB; a tensor takes 100 to 200 bytes of header, and JSON in memory 20 times its text.
MAX_HEADER = 16 << 20

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


def is_safetensors(head: bytes) -> bool:
    """Whether ``head`` begins a safetensors file: its header begins with a brace and is shorter than 2**40 bytes.

    A file with a header of 640 bytes begins like a pickle of protocol 2, but no pickle continues with three zeros.
    """
    return head[8:9] == b"{" and head[5:8] == bytes(3) and (head[:1] != b"\x80" or head[4:5] == b"\0")


def read(file: BinaryIO, size: int) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file; its ``__metadata__`` is left out.

    Raises:
        MalformedError: if the header is truncated or violates the format: every tensor's range must have the length of
            its shape, and the ranges must cover the values without gaps or overlaps.
    """
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise MalformedError(f"truncated or damaged: its header promises {length} bytes, and the file has {size}")
    if length > MAX_HEADER:
        raise MalformedError(f"its header has {length} bytes; {MAX_HEADER} is the limit")
    ranges = _ranges(file.read(length), size - 8 - length)
    tensors = {}
    for name, (dtype, shape, start, end) in ranges.items():
        file.seek(8 + length + start)
        content = read_bytes(file, end - start, f"tensor {name[:80]}")
        # A byte of a damaged file need be neither 0 nor 1.
        content = content.ne(0) if dtype == torch.bool else content.view(dtype)
        tensors[name] = content.reshape(shape)
    return tensors


def _ranges(header: bytes, size: int) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
    """Of each tensor the dtype, the shape, and the range in the ``size`` bytes of values."""
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"damaged: its header is not JSON: {str(error)[:200]}") from None
    if type(entries) is not dict:
        raise MalformedError("damaged: its header is not a JSON object")
    entries.pop("__metadata__", None)
    ranges = {name: _entry(name, entry) for name, entry in entries.items()}
    free = 0
    for name, (_, _, start, end) in sorted(ranges.items(), key=lambda item: item[1][2:]):
        if start != free:
            raise MalformedError(f"damaged: tensor {name[:80]} begins at byte {start} of the values; {free} is next")
        free = end
    if free > size:
        raise MalformedError(f"truncated: its header promises {free} bytes of values, and it has {size}")
    if free < size:
        raise MalformedError(f"damaged: {size - free} bytes follow the last tensor")
    return ranges


def _entry(name: str, entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    what = f"tensor {name[:80]}"
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise MalformedError(f"damaged: {what} is not described by dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = _DTYPES.get(kind) if type(kind) is str else None
    if dtype is None:
        raise MalformedError(f"{what} has the dtype {str(kind)[:20]!r}; read are {', '.join(_DTYPES)}")
    if type(shape) is not list or type(offsets) is not list or len(offsets) != 2 or not all(map(is_size, offsets)):
        raise MalformedError(f"damaged: {what} has no shape or no range")
    needed = count(shape, what) * dtype.itemsize
    if offsets[1] - offsets[0] != needed:
        raise MalformedError(f"damaged: {what} has {offsets[1] - offsets[0]} bytes for {needed}")
    return dtype, shape, offsets[0], offsets[1]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise MalformedError("damaged: its header names a tensor twice")
    return made
