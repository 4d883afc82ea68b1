"""The two formats of torch.save: a zip file since torch 1.6; before that, several pickles followed by the storages."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import torch

from resnet_cuda.weights import _pickle_names, _pickle_torch, _plain, _zip_records, other_formats
from resnet_cuda.weights._malformed import Budget, MalformedError
from resnet_cuda.weights._pickle_torch import Storage, View
from resnet_cuda.weights.restricted_pickle import Machine

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def read_zip(file: BinaryIO, size: int) -> Any:
    """The content of a zip file of torch.save, with tensors on the CPU.

    Raises:
        MalformedError: for every other zip file, and if a tensor exceeds its storage.
    """
    records = _zip_records.records(file, size)
    roots = [name[: -len("data.pkl")] for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        other = other_formats.of_zip(records)
        if other is not None:
            raise MalformedError(f"it is not a file of weights: it is {other}")
        raise MalformedError("it is a zip file, but not one of torch.save: it has no record data.pkl")
    (root,) = roots
    if f"{root}constants.pkl" in records:
        raise MalformedError(
            "it holds a TorchScript program; save the state_dict() of the module that torch.jit.load returns"
        )
    order = records.get(f"{root}byteorder")
    if order is not None and _raw(file, order) != b"little":
        raise MalformedError("its numbers are big-endian; load and save it with torch")
    storages: dict[str, torch.Tensor] = {}

    def stored(storage: Storage) -> torch.Tensor:
        needed = storage.elements * storage.dtype.itemsize
        if storage.key not in storages:
            record = records.get(f"{root}data/{storage.key}")
            if record is None:
                raise MalformedError(f"damaged: it has no record of storage {storage.key[:40]}")
            storages[storage.key] = _zip_records.read(file, record)
        if len(storages[storage.key]) != needed:
            raise MalformedError(f"storage {storage.key[:40]} has {len(storages[storage.key])} bytes for {needed}")
        return storages[storage.key]

    budget = Budget(size)
    pickled = _raw(file, records[f"{root}data.pkl"])
    machine = Machine(pickled, _pickle_torch.NAMES, budget, lambda identifier: _pickle_torch.storage_of(identifier, 5))
    return _plain.plain(machine.load(), lambda value: _leaf(value, stored))


def is_legacy(data: bytes) -> bool:
    """Whether ``data`` begins like a file of torch.save before 1.6: with the pickle of a number."""
    try:
        return bool(Machine(data[:64], {}, Budget(64)).load() == LEGACY_MAGIC)
    except MalformedError:
        return False


def read_legacy(data: bytes) -> Any:
    """The content of a file of torch.save before 1.6.

    It has five pickles (magic number, version, the writer's machine, content, keys of the storages), followed by the
    storages, each with its number of elements first.

    Raises:
        MalformedError: for content that torch.save does not write, and if a tensor exceeds its storage.
    """
    budget = Budget(len(data))
    mentioned: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Any:
        if type(identifier) is tuple and identifier[:1] == ("module",):
            raise MalformedError("it holds a module with its source text; save the module's state_dict()")
        storage = _pickle_torch.storage_of(identifier, 6)
        known = mentioned.setdefault(storage.key, storage)
        if known.dtype != storage.dtype:
            raise MalformedError(f"storage {storage.key[:40]} has two dtypes")
        return storage

    machine = Machine(data, {}, budget)
    machine.load()  # the magic number
    version, system = machine.load(), machine.load()
    if version != _LEGACY_VERSION or not isinstance(system, dict):
        raise MalformedError("damaged: its head is not that of torch.save")
    if system.get("little_endian") is not True:
        raise MalformedError("its numbers are big-endian; load and save it with torch")
    content = Machine(data, _pickle_torch.NAMES, budget, persistent, machine.position)
    tree = content.load()
    keys = Machine(data, {}, budget, position=content.position)
    names = keys.load()
    if type(names) is not list or {str(key) for key in names} != set(mentioned) or len(names) != len(mentioned):
        raise MalformedError("damaged: the keys of its storages are not those that its tensors name")
    storages, end = _legacy_storages(data, keys.position, [mentioned[str(key)] for key in names])
    if end != len(data):
        raise MalformedError(f"{len(data) - end} bytes follow the end of its storages")

    def stored(storage: Storage) -> torch.Tensor:
        found = storages[storage.key]
        if (storage.start + storage.elements) * storage.dtype.itemsize > len(found):
            raise MalformedError(f"storage {storage.key[:40]} is shorter than its tensors")
        return found

    return _plain.plain(tree, lambda value: _leaf(value, stored))


def _legacy_storages(data: bytes, position: int, storages: list[Storage]) -> tuple[dict[str, torch.Tensor], int]:
    """The bytes of each storage by its key, and where the last ends."""
    found = {}
    for storage in storages:
        elements = int.from_bytes(data[position : position + 8], "little")
        start = position + 8
        position = start + elements * storage.dtype.itemsize
        if position > len(data) or start > len(data):
            raise MalformedError(f"truncated: its storage {storage.key[:40]} is not all there")
        content = torch.empty(position - start, dtype=torch.uint8, device="cpu")
        content.numpy()[:] = np.frombuffer(data, np.uint8, position - start, start)
        found[storage.key] = content
    return found, position


def _raw(file: BinaryIO, record: _zip_records.Record) -> bytes:
    return _zip_records.read(file, record).numpy().tobytes()


def _leaf(value: Any, stored: Any) -> Any:
    if isinstance(value, View):
        return _pickle_torch.tensor(value, stored(value.storage))
    if isinstance(value, Storage):
        raise MalformedError("it holds a storage; only tensors are read")
    return _pickle_names.leaf(value)
