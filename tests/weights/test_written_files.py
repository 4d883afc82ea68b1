"""Writing files of weights: every format, what cannot be written, and where."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import pytest
import torch
from helpers.processes import run_python
from helpers.weight_files import assert_same

from resnet_cuda.weights import files
from resnet_cuda.weights.files import FileError, read, write


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


FULL = """
import resource, sys, torch
from resnet_cuda.weights.files import FileError, write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    write({f"w{it}": torch.ones(5000) for it in range(10)}, sys.argv[1], sys.argv[2])
except FileError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("room", [0, 4096, 30000, 200000])
@pytest.mark.parametrize("container", files.CONTAINERS)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path, container, room):
    if container == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / "name"
    path.write_bytes(b"before")
    done = run_python("-c", FULL, path, container, str(room))
    assert (done.stdout, done.returncode) == (f"{path}: File too large\n", 0), done.stderr
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["name"]


@pytest.mark.parametrize(
    ("first", "raised", "message"),
    [(KeyboardInterrupt("x"), KeyboardInterrupt, "x"), (None, FileError, "name: unexpected pos 4480 vs 4374")],
)
def test_what_ended_the_writing_is_raised(tmp_path, monkeypatch, first, raised, message):
    def save(content, file):
        try:
            if first is not None:
                raise first
        finally:
            raise RuntimeError("unexpected pos 4480 vs 4374")

    monkeypatch.setattr(torch, "save", save)
    try:
        raise ZeroDivisionError  # what a caller handles meanwhile is no reason
    except ZeroDivisionError:
        with pytest.raises(raised, match=message):
            write({"w": torch.ones(1)}, tmp_path / "name", "torch")
    assert os.listdir(tmp_path) == []
