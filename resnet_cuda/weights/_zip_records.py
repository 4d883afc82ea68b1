"""The records of a zip file as torch.save writes them: uncompressed and consecutive."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import torch

from resnet_cuda.weights._malformed import MalformedError

MAGIC = b"PK\x03\x04"
_CHUNK = 1 << 20
_MAX_COMMENT = 1 << 16


@dataclass(frozen=True)
class Record:
    """The position of a record's header, the length and CRC32 of its data, and why the data cannot be read, if so."""

    name: str
    header: int
    size: int
    checksum: int
    problem: str = ""


def records(file: BinaryIO, size: int) -> dict[str, Record]:
    """The records by name, from the central directory at the file's end.

    Args:
        file: the zip file.
        size: its length in bytes.

    Raises:
        MalformedError: for a file without such a directory, and for records with equal names or that overlap, with
            which a short file could yield more data than its length.
    """
    entries, offset, length, end = _directory(file, size)
    if offset + length > end or entries * 46 > length:
        raise MalformedError("damaged: its zip directory is out of the file's bounds")
    file.seek(offset)
    directory = file.read(length)
    found: dict[str, Record] = {}
    position = 0
    for _ in range(entries):
        record, position = _entry(directory, position)
        if record.name in found:
            raise MalformedError(f"damaged: it has two records {record.name[:80]}")
        found[record.name] = record
    free = 0
    for record in sorted(found.values(), key=lambda record: record.header):
        if record.header < free:
            raise MalformedError(f"damaged: its record {record.name[:80]} overlaps another")
        free = record.header + 30 + record.size
        if free > offset:
            raise MalformedError(f"truncated or damaged: its record {record.name[:80]} ends behind the file's")
    return found


def read(file: BinaryIO, record: Record) -> torch.Tensor:
    """The bytes of ``record``, uint8 of one dimension.

    Raises:
        MalformedError: if they are compressed, encrypted or truncated, or do not match the checksum.
    """
    if record.problem:
        raise MalformedError(
            f"its record {record.name[:80]} is {record.problem}, as torch.save writes none; load and save it with torch"
        )
    file.seek(record.header)
    header = file.read(30)
    if len(header) < 30 or header[:4] != MAGIC:
        raise MalformedError(f"damaged: its record {record.name[:80]} has no header")
    name, extra = struct.unpack("<HH", header[26:])
    file.seek(record.header + 30 + name + extra)
    return read_bytes(file, record.size, f"record {record.name[:80]}", record.checksum)


def read_bytes(file: BinaryIO, size: int, what: str, checksum: int | None = None) -> torch.Tensor:
    """The next ``size`` bytes of ``file``, uint8 of one dimension; ``size`` is at most the file's.

    Raises:
        MalformedError: naming ``what``, if they are truncated or their CRC32 is not ``checksum``.
    """
    content = torch.empty(size, dtype=torch.uint8, device="cpu")  # whatever torch.set_default_device says
    view = memoryview(content.numpy())  # type: ignore[arg-type]
    found = 0
    for start in range(0, size, _CHUNK):
        part = view[start : start + _CHUNK]
        if file.readinto(part) != len(part):  # type: ignore[attr-defined]
            raise MalformedError(f"truncated: its {what} is not all there")
        found = zlib.crc32(part, found) if checksum is not None else 0
    if checksum is not None and found != checksum:
        raise MalformedError(
            f"damaged: its {what} has another checksum than when it was written "
            "(torch.serialization.set_crc32_options(False) writes files without checksums)"
        )
    return content


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int, int]:
    """The directory's number of entries, offset and length, and where it must have ended."""
    tail_at = max(0, size - 22 - _MAX_COMMENT)
    file.seek(tail_at)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0 and (len(tail) - at < 22 or at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail)):
        at = tail.rfind(b"PK\x05\x06", 0, at + 3)
    if at < 0:
        raise MalformedError("truncated: it begins as a zip file of torch.save and has no zip directory at its end")
    disk, directory_disk, here, entries, length, offset = struct.unpack("<4H2L", tail[at + 4 : at + 20])
    end = tail_at + at
    if 0xFFFF in (here, entries) or 0xFFFFFFFF in (length, offset):
        file.seek(max(0, end - 20))
        locator = file.read(20)
        if locator[:4] != b"PK\x06\x07":
            raise MalformedError("damaged: its zip directory has no end")
        end = int.from_bytes(locator[8:16], "little")
        if end + 56 > size:
            raise MalformedError("damaged: its zip directory is out of the file's bounds")
        file.seek(end)
        record = file.read(56)
        if record[:4] != b"PK\x06\x06":
            raise MalformedError("damaged: its zip directory has no end")
        disk, directory_disk, here, entries, length, offset = struct.unpack("<2L4Q", record[16:])
    if disk or directory_disk or here != entries:
        raise MalformedError("damaged: its zip directory is split into several files")
    return entries, offset, length, end


def _entry(directory: bytes, position: int) -> tuple[Record, int]:
    fixed = directory[position : position + 46]
    if len(fixed) < 46 or fixed[:4] != b"PK\x01\x02":
        raise MalformedError("damaged: its zip directory has an invalid entry")
    flags, method = struct.unpack("<HH", fixed[8:12])
    checksum, packed, size, name_length, extra_length, comment_length = struct.unpack("<3L3H", fixed[16:34])
    header = int.from_bytes(fixed[42:46], "little")
    end = position + 46 + name_length + extra_length + comment_length
    if end > len(directory):
        raise MalformedError("damaged: its zip directory has an invalid entry")
    name = directory[position + 46 : position + 46 + name_length].decode("utf-8", "backslashreplace")
    extra = directory[position + 46 + name_length : end - comment_length]
    size, packed, header = _wide(extra, (size, packed, header))
    problem = "encrypted" if flags & 1 else "compressed" if method != 0 or size != packed else ""
    return Record(name, header, packed, checksum, problem), end


def _wide(extra: bytes, values: tuple[int, int, int]) -> tuple[int, ...]:
    """Size, packed size and offset, those that 32 bits do not hold out of the extra field 1 (zip64)."""
    wide = [value for value in values if value == 0xFFFFFFFF]
    while wide and len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1 and length >= 8 * len(wide) and len(extra) >= 4 + length:
            given = iter(struct.unpack(f"<{len(wide)}Q", extra[4 : 4 + 8 * len(wide)]))
            return tuple(next(given) if value == 0xFFFFFFFF else value for value in values)
        extra = extra[4 + length :]
    return values
