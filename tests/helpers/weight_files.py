"""Small files of weights in each format, the means to write what no library does, and a comparison of contents."""

from __future__ import annotations

import collections
import io
import json
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import torch

STOP = b"."


def content() -> dict[str, Any]:
    """A checkpoint with the kinds of values that real ones have; 60 numbers in its tensors."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = collections.OrderedDict(
        weight=base,
        view=base[1:, 2:4].t(),  # of the same storage
        half=torch.tensor([1, -2], dtype=torch.float16),
        brain=torch.tensor([3, 4], dtype=torch.bfloat16),
        counter=torch.tensor(7),
        flags=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.ones(3)),
    )
    state._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    return {"model": state, "iteration": 90000, "optimizer": {"param_groups": [{"lr": 0.02, "betas": (0.9, 0.999)}]}}


def arrays() -> dict[str, Any]:
    """The same as Caffe2's files hold it, with arrays of NumPy."""
    blobs = {
        "conv1_w": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "counter": np.array(7),
        "scalar": np.float64(0.5),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "names": np.array(["a", "bc"]),
    }
    return {"blobs": blobs, "cfg": "MODEL: {}", "__author__": "Caffe2", "matching_heuristics": True}


def assert_same(got: Any, expected: Any) -> None:
    """Equal containers, with tensors for arrays and numbers of Python for those of NumPy."""
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        expected = torch.as_tensor(np.array(expected)) if isinstance(expected, np.ndarray) else expected.detach()
        assert type(got) is torch.Tensor
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    elif isinstance(expected, dict):
        assert type(got) is dict
        assert got.keys() == expected.keys()
        for key in expected:
            assert_same(got[key], expected[key])
    else:
        assert got == expected


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def safetensors(header: Any, values: bytes = b"") -> bytes:
    """A file with this header, an object for JSON or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def torch_zip(pickled: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """A zip file as torch.save writes it, with this pickle and these storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def pickled_tensor(
    shape: tuple, strides: tuple, offset: int = 0, numel: int = 4, kind: bytes = b"FloatStorage"
) -> bytes:
    """The pickle of {"w": a tensor} upon storage "0"."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text("0") + text("cpu") + number(numel) + b"tQ"
    geometry = number(offset) + numbers(shape) + numbers(strides)
    hooks = b"ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + geometry + b"\x89" + hooks + b"tR"
    return b"\x80\x02}" + text("w") + tensor + b"s."


def legacy_torch(pickled: bytes) -> bytes:
    """A file of torch before 1.6 with this pickle and without storages."""
    head = saved({}, _use_new_zipfile_serialization=False)
    content = pickle.dumps({}, 2)
    assert head.count(content) == 1
    return head.replace(content, pickled)


def legacy_tensor(elements: int, data: bytes, kind: bytes = b"FloatStorage", view: bytes = b"N") -> bytes:
    """An older file of torch with one tensor of one element, and a storage of this length that holds ``data``."""
    identifier = b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text("0") + text("cpu") + number(elements)
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identifier + view + b"tQK\0K\1\x85K\1\x85\x89)tR"
    keys = pickle.dumps(["0"], 2)
    head = saved({}, _use_new_zipfile_serialization=False)
    start = head.index(pickle.dumps({}, 2))
    return head[:start] + b"\x80\x02}" + text("w") + tensor + b"s." + keys + data


def text(value: str) -> bytes:
    """BINUNICODE"""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    """LONG1"""
    return b"\x8a" + bytes((len(pickle.encode_long(value)),)) + pickle.encode_long(value)


def numbers(values: tuple) -> bytes:
    """A tuple"""
    return b"(" + b"".join(map(number, values)) + b"t"


SAMPLES = {
    "torch": saved(content()),
    "legacy torch": saved(content(), _use_new_zipfile_serialization=False),
    **{f"pickle {protocol}": pickle.dumps(arrays(), protocol) for protocol in (0, 1, 2, 3, 4, 5)},
    "safetensors": safetensors(
        {
            "__metadata__": {"format": "pt"},
            "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "brain": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
            "flags": {"dtype": "BOOL", "shape": [2], "data_offsets": [28, 30]},
            "empty": {"dtype": "F32", "shape": [0, 3], "data_offsets": [30, 30]},
            "counter": {"dtype": "I64", "shape": [], "data_offsets": [30, 38]},
        },
        struct.pack("<6f2H2?q", *range(6), 0x3F80, 0x4000, True, False, 7),
    ),
}
