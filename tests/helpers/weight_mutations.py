"""Damaged files of weights, the same for the same seed."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Iterator

from helpers.weight_files import SAMPLES, torch_zip

KINDS = ("torch", "legacy torch", "pickle", "safetensors")

# Lengths, counts and offsets that overflow something.
_LARGE = [0, 1, 0x7F, 0xFF, 0xFFFF, *(1 << bits for bits in (31, 32, 40, 62, 63)), (1 << 31) - 1, (1 << 64) - 1]
_TEXTS = [b"-1", b"0", b"99999999999", b"9223372036854775807", b"1e9", b"null", b"[]", b"{}", b'"F64"', b"true"]


def mutations(kind: str, seed: int, number: int) -> Iterator[bytes]:
    """``number`` files of one of :data:`KINDS`.

    Half of torch's zip files have a damaged pickle within and checksums that are right: else few would come further
    than the checksum.
    """
    draw = random.Random(f"{kind} {seed}")
    samples = [data for name, data in SAMPLES.items() if name == kind or name.split()[0] == kind]
    with zipfile.ZipFile(io.BytesIO(SAMPLES["torch"])) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    storages = {name.removeprefix("data/"): data for name, data in records.items() if name.startswith("data/")}
    for _ in range(number):
        if kind == "torch" and draw.random() < 0.5:
            yield torch_zip(mutated(records["data.pkl"], records["data.pkl"], draw), storages)
        else:
            yield mutated(draw.choice(samples), draw.choice(samples), draw)


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """``data`` with one to four changes; some take a part of ``other``."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 1, 2, 4, 8, 40)))
        start = draw.randrange(len(other))
        large = draw.choice(_LARGE)
        width = draw.choice([width for width in (1, 2, 4, 8) if large < 1 << 8 * width])
        data = draw.choice(
            (
                data[:at] + bytes((draw.randrange(256),)) + data[at + 1 :],  # another byte
                data[:at] + bytes((data[at] ^ 1 << draw.randrange(8),)) + data[at + 1 :] if at < len(data) else data,
                data[:at] + data[end:],  # a part less
                data[:at] + data[at:end] * draw.choice((2, 3, 50)) + data[end:],  # a part several times
                data[:at] + other[start : start + draw.choice((1, 5, 30))] + data[end:],  # a part of another file
                data[:at] + other[start : start + draw.choice((1, 5, 30))] + data[at:],
                data[:at] + large.to_bytes(width, "little") + data[at + width :],  # another length
                data[:at] + struct.pack(">H", draw.randrange(1 << 16)) + data[at + 2 :],
                data[:at] + draw.choice(_TEXTS) + data[end:],
                data[:at] if draw.random() < 0.3 else data,  # truncated
            )
        )
    return data
