"""Reading files of weights: every format, and every kind of content."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import re
import sys
import types

import numpy as np
import pytest
import torch
from helpers.weight_files import SAMPLES, arrays, assert_same, content, pickled_tensor, safetensors, saved, torch_zip

from resnet_cuda.weights.files import FileError, read, write


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_files_of_torch(written, legacy, protocol):
    path = written(saved(content(), pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy))
    got = read(path)
    assert_same(got, content())
    model = got["model"]
    assert list(model) == list(content()["model"])  # in order
    assert model["view"].stride() == (1, 6)
    assert model["view"].untyped_storage().data_ptr() == model["weight"].untyped_storage().data_ptr()
    model["weight"].add_(1)  # its memory is its own


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_numpy(written, protocol):
    got = read(written(pickle.dumps(arrays(), protocol)))
    names = got["blobs"].pop("names")
    expected = arrays()
    del expected["blobs"]["names"]
    assert names == ["a", "bc"]
    assert_same(got, expected)
    assert type(got["blobs"]["scalar"]) is float
    got["blobs"]["conv1_w"].add_(1)


@pytest.mark.parametrize("protocol", range(3))
def test_pickles_of_python_2(written, protocol):
    """Their strings, array contents among them, are bytes of Python 2: STRING, BINSTRING or SHORT_BINSTRING."""
    array = {
        0: rb"S'\x00\x00\x80?\x00\x00\xc0\xff'" + b"\n",
        1: b"T\x08\0\0\0\0\0\x80?\0\0\xc0\xff",
        2: b"U\x08\0\0\x80?\0\0\xc0\xff",
    }[protocol]
    kind = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    made = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L2L\nt" + kind + b"I00\n" + array
    )
    got = read(written(b"(dp0\nS'conv1_w'\np1\n" + made + b"tbs."))
    assert got["conv1_w"][0] == 1
    assert torch.isnan(got["conv1_w"][1])


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16", "?"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_dtypes_of_numpy(written, dtype, order):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(np.dtype(dtype).newbyteorder(order))
    got = read(written(pickle.dumps({"a": array, "transposed": array.T, "one": array[1, 1]})))
    native = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    assert_same(got["a"], native)
    assert_same(got["transposed"], native.T)
    assert got["one"] == array[1, 1]


def test_booleans_are_true_or_false_whatever_their_bytes(written):
    """torch and NumPy take any byte for one, and then disagree about it."""
    raw = b"\0\1\2\xff"
    array = pickle.dumps({"w": np.frombuffer(b"\1\1\0\1", bool)}, 3).replace(b"\1\1\0\1q", raw + b"q")
    scalar = pickle.dumps({"w": np.True_}, 3).replace(b"C\1\1", b"C\1\2")
    header = {"w": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}
    zipped = torch_zip(pickled_tensor((4,), (1,), kind=b"BoolStorage"), {"0": raw})
    assert raw in array
    assert b"C\1\2" in scalar
    assert read(written(scalar))["w"] is True
    for data in (array, safetensors(header, raw), zipped):
        got = read(written(data))["w"]
        assert got.view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_both_names_of_numpys_core(written):
    pickled = pickle.dumps({"a": np.arange(3)}, 2)
    for name in (b"numpy._core", b"numpy.core"):  # of NumPy 2, and of earlier versions
        data, count = re.subn(rb"numpy\._?core", name, pickled)
        assert count
        assert_same(read(written(data))["a"], torch.arange(3))


def test_numpy_within_files_of_torch(written):
    """detectron2's .pth, and the records beside the weights in many."""
    value = {"model": {"w": np.ones((2, 3), np.float32)}, "best": np.float32(0.5), "where": torch.device("cuda:1")}
    for legacy in (False, True):
        got = read(written(saved(value, _use_new_zipfile_serialization=not legacy)))
        assert_same(got["model"]["w"], torch.ones(2, 3))
        assert got["best"] == 0.5
        assert got["where"] == "cuda:1"


def test_other_kinds_of_tensors(written):
    attributed = torch.nn.Parameter(torch.ones(2))
    attributed.mark = 5
    value = {
        "attributed": attributed,
        "expanded": torch.ones(1).expand(5),
        "u16": torch.tensor([1, 65535], dtype=torch.uint16),
        "complex": torch.tensor([1 + 2j]),
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
    }
    got = read(written(saved(value)))
    for name in ("attributed", "expanded", "u16", "complex"):
        assert_same(got[name], value[name])
    assert got["size"] == (1, 2)
    assert got["dtype"] == "torch.float16"


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_with_the_oldest_pickles(written, legacy):
    """Protocol 1 is read; what protocol 0 writes torch cannot load either."""
    options = {"_use_new_zipfile_serialization": not legacy}
    assert_same(read(written(saved(content(), pickle_protocol=1, **options))), content())
    with pytest.raises(FileError, match="saved with pickle_protocol=0, which torch cannot read either"):
        read(written(saved(content(), pickle_protocol=0, **options)))


def test_records_of_other_libraries_are_dictionaries(written, monkeypatch):
    """argparse's options, and mmengine's record of losses with its methods, which Python 3 writes by getattr."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def mean(self):
            raise AssertionError("it ran")

        def __init__(self):
            self._log_history = np.arange(3.0)
            self._statistics_methods = collections.OrderedDict(mean=HistoryBuffer.mean)

    for item in (HistoryBuffer, HistoryBuffer.mean):
        item.__module__ = module.__name__
        item.__qualname__ = item.__qualname__.rpartition("<locals>.")[2]
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    value = {"state_dict": {"w": torch.ones(1)}, "hub": HistoryBuffer(), "args": argparse.Namespace(lr=0.1)}
    data = saved(value)
    monkeypatch.undo()
    got = read(written(data))
    assert got["args"] == {"lr": 0.1}
    assert torch.equal(got["hub"]["_log_history"], torch.arange(3, dtype=torch.float64))
    assert got["hub"]["_statistics_methods"] == {"mean": "mmengine.logging.history_buffer.HistoryBuffer.mean"}


def test_containers(written):
    value = {
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter("aab"),
        "set": {1, "a"},
        "frozen": frozenset((1, 2)),
        "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "numbers": [0, -1, 255, 65535, 1 << 31, -(1 << 70), 0.5, 1j, True, False, None],
        "text": ["", "ä\n\\", "\u4e2d", b"\0\xff", "x" * 300],
        "keys": {1: 2, (1, "a"): 3, None: 4},
    }
    shared: list[int] = [1]
    value["twice"] = [shared, shared]
    for protocol in range(6):
        got = read(written(pickle.dumps(value, protocol)))
        assert got == value
        assert got["twice"][0] is got["twice"][1]


def test_safetensors_reads_without_its_package(written, monkeypatch):
    for name in ("safetensors", "safetensors.torch"):  # another test may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    got = read(written(SAMPLES["safetensors"]))
    assert list(got) == ["weight", "brain", "flags", "empty", "counter"]
    assert_same(got["weight"], torch.arange(6.0).reshape(2, 3))
    assert_same(got["brain"], torch.tensor([1, 2], dtype=torch.bfloat16))
    assert_same(got["flags"], torch.tensor([True, False]))
    assert_same(got["counter"], torch.tensor(7))
    assert got["empty"].shape == (0, 3)
    with pytest.raises(ValueError, match="pip install safetensors"):
        write({"w": torch.ones(1)}, written(b""), "safetensors")


def test_safetensors_of_its_package(written):
    package = pytest.importorskip("safetensors.torch")
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    dtypes += (torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64)
    tensors = {str(dtype): torch.tensor([[0, 1, 1]]).to(dtype) for dtype in dtypes}
    got = read(written(package.save(tensors)))
    assert got.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert_same(got[name], tensor)


def test_every_length_of_a_safetensors_header(written):
    """Its first byte is that of a pickle's first instruction for some: 0x80, "(", "]", "}" and "c"."""
    for length in range(128, 128 + 768):
        header = {"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
        data = safetensors(json.dumps(header).encode().ljust(length), b"\5")
        assert read(written(data))["w"].tolist() == [5]
