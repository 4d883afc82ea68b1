"""Reading and writing files of weights: every format, every kind of content, and what a wrong file is told."""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from helpers.weight_files import SAMPLES, arrays, content, pickled_tensor, safetensors, saved, torch_zip

from resnet_cuda.weights import files
from resnet_cuda.weights.files import FileError, read, write


@pytest.fixture
def written(tmp_path):
    """A function that writes bytes and gives the path, whose name tells nothing."""

    def write_bytes(data: bytes):
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write_bytes


def assert_same(got, expected):
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
    new = pickle.dumps({"a": np.arange(3)}, 2)
    old = new.replace(b"numpy._core", b"numpy.core")
    assert new != old
    for data in (new, old):
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


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_sparse_and_quantized_tensors_are_refused(written):
    for tensor in (torch.eye(2).to_sparse(), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)):
        with pytest.raises(FileError, match="sparse, quantized, nested or without values"):
            read(written(saved({"w": tensor})))


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "complex32"])
def test_dtypes_that_are_not_read_are_named(written, name):
    tensor = torch.ones(2).to(getattr(torch, name))
    with pytest.raises(FileError, match=f"it holds a tensor of {name}; read are float64, float32"):
        read(written(saved({"w": tensor})))


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_with_the_oldest_pickles(written, legacy):
    """Protocol 1 is read; what protocol 0 writes torch cannot load either."""
    options = {"_use_new_zipfile_serialization": not legacy}
    assert_same(read(written(saved(content(), pickle_protocol=1, **options))), content())
    with pytest.raises(FileError, match="saved with pickle_protocol=0, which torch cannot read either"):
        read(written(saved(content(), pickle_protocol=0, **options)))


def test_weights_in_several_files(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 4}, "weight_map": {"w": "model-1.safetensors"}}))
    with pytest.raises(FileError, match=r"the index of weights in several files; merge what .*files\.read gives"):
        read(index)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(FileError, match="it begins with b'{}'"):
        read(other)


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_directories_of_torchs_distributed_checkpoints(tmp_path):
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    formats = pytest.importorskip("torch.distributed.checkpoint.format_utils")
    checkpoint.save({"w": torch.ones(2)}, checkpoint_id=tmp_path / "saved", no_dist=True)
    with pytest.raises(FileError, match=r"torch\.distributed\.checkpoint\.format_utils\.dcp_to_torch_save\("):
        read(tmp_path / "saved")
    formats.dcp_to_torch_save(tmp_path / "saved", tmp_path / "file.pth")
    assert read(tmp_path / "file.pth")["w"].tolist() == [1, 1]
    with pytest.raises(FileError, match="it is a directory, not a file"):
        read(tmp_path)


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


@pytest.mark.parametrize("container", files.CONTAINERS)
def test_written_files_come_back(tmp_path, container):
    if container == "safetensors":
        pytest.importorskip("safetensors")
    base = torch.randn(40, 50)
    flat = {
        "w": base[1:3, 2:4].t(),
        "same": base[1:3, 2:4],
        "row": base[1],
        "n": torch.tensor(3),
        "e": torch.zeros(0, 2),
    }
    path = tmp_path / "name"
    path.write_bytes(b"before")
    write(flat, path, container)
    assert_same(read(path), flat)
    assert os.listdir(tmp_path) == ["name"]
    assert path.stat().st_size < 6000  # not the whole storage of a view
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    if container != "safetensors":
        nested = {"model": flat, "iteration": 5, "list": [1, (2.0, "a")], "none": None}
        write(nested, path, container)
        assert_same(read(path), nested)


def test_written_pickles_are_detectrons(tmp_path):
    path = tmp_path / "R-50.pkl"
    write({"model": {"w": torch.ones(2, 3)}, "__author__": "x"}, path, "pickle")
    data = path.read_bytes()
    assert data[:2] == b"\x80\x02"
    assert b"numpy.core.multiarray\n_reconstruct\n" in data
    assert b"numpy._core" not in data
    with open(path, "rb") as file:
        got = pickle.load(file, encoding="latin1")
    assert isinstance(got["model"]["w"], np.ndarray)
    assert got["model"]["w"].dtype == np.float32
    assert got["model"]["w"].tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("content", "container", "error", "message"),
    [
        ({"w": torch.ones(1)}, "zip", ValueError, "container is 'zip'; allowed are torch, pickle, safetensors"),
        ([1], "torch", TypeError, "content is a list; it must be a mapping"),
        ({"a": {"b": [object()]}}, "torch", FileError, r"name: content\['a'\]\['b'\]\[0\] is a object"),
        ({"w": torch.ones(1, dtype=torch.bfloat16)}, "pickle", FileError, r"content\['w'\] is torch.bfloat16"),
        ({"w": torch.ones(1), "n": 5}, "safetensors", FileError, "'n' is not a tensor"),
    ],
)
def test_what_cannot_be_written(tmp_path, content, container, error, message):
    if container == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / "name"
    path.write_bytes(b"before")
    with pytest.raises(error, match=message):
        write(content, path, container)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["name"]
    with pytest.raises(FileError, match="missing/name: No such file or directory"):
        write({}, tmp_path / "missing" / "name", "torch")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x89HDF\r\n", "none of torch, pickle and safetensors"),
        (b"PK\x05\x06" + bytes(18), "none of torch, pickle and safetensors"),
        (saved(torch.ones(3)), "it holds a Tensor"),
        (saved([torch.ones(3)]), "it holds a list"),
        (pickle.dumps({1: 2}), "it holds the key 1; names of weights are strings"),
        (pickle.dumps({None: 2}), "it holds the key None"),
        (pickle.dumps({}) + b"more", "4 bytes follow the end"),
        (saved(content(), _use_new_zipfile_serialization=False) + b"more", "4 bytes follow the end"),
        (safetensors({}) + b"more", "4 bytes follow the last tensor"),
    ],
)
def test_what_is_no_file_of_weights(written, data, message):
    path = written(data)
    with pytest.raises(FileError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("container", files.CONTAINERS)
def test_what_is_no_regular_file_is_not_replaced(tmp_path, container):
    if container == "safetensors":
        pytest.importorskip("safetensors")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path, kind in ((tmp_path / "pipe", "named pipe"), (tmp_path / "link", "named pipe"), (tmp_path, "directory")):
        with pytest.raises(FileError, match=f"{path}: it is a {kind}.*; it must be a regular file"):
            write({"w": torch.ones(1)}, path, container)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.parametrize("container", files.CONTAINERS)
def test_a_link_is_written_through_and_permissions_stay(tmp_path, container):
    if container == "safetensors":
        pytest.importorskip("safetensors")
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"before")
    path.chmod(0o600)
    link.symlink_to("file")
    write({"w": torch.ones(1)}, link, container)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    assert torch.equal(read(path)["w"], torch.ones(1))


def test_paths_without_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "missing", "there is no such file"),
        (tmp_path, "it is a directory"),
        (tmp_path / "pipe", "it is not a regular file"),
        ("/dev/zero", "it is not a regular file"),
        ("a\0b", "it cannot be read"),
    ):
        with pytest.raises(FileError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_modules_are_told_what_to_save(written):
    layer = torch.nn.Linear(1, 1)
    for legacy in (False, True):
        with pytest.raises(FileError, match=r"refused: it asks for torch.nn.modules.linear.Linear|state_dict\(\)"):
            read(written(saved({"model": layer}, _use_new_zipfile_serialization=not legacy)))
    program = torch.jit.trace(layer, torch.ones(1, 1))
    path = written(b"")
    torch.jit.save(program, str(path))
    with pytest.raises(FileError, match=r"a TorchScript program; save the state_dict\(\)"):
        read(path)
