"""What is no file of weights, or of a kind that is not read: what each is told, and what to do about it."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import numpy
import pytest
import torch
from helpers.weight_files import content, safetensors, saved

import resnet_cuda
from resnet_cuda.weights.files import FileError, read


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x89HDX\r\n", "none of torch, pickle and safetensors"),
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


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "w.h5",
            b"\x89HDF\r\n\x1a\n" + bytes(8),
            r"it is an HDF5 file, .* h5py .* kernels \(kh, kw, in, out\) permuted",
        ),
        ("w.npy", b"\x93NUMPY\x01\x00", "it is an array of NumPy; read it with numpy.load and hand over a state dict"),
        ("w.tflite", b"\x1c\0\0\0TFL3", "it is a TensorFlow Lite file"),
        ("w.gguf", b"GGUF\x03\0\0\0", "it is a GGUF file"),
        (
            "w.onnx",
            b"\x08\x08\x12\x07pytorch",
            "it is an ONNX file; .* each norm is an identity with the kernel's bias",
        ),
        ("w.ONNX", b"\x08\x08\x12\x07pytorch", "it is an ONNX file"),
        ("w.onnx", b"\x12\x34", r"it begins with b'\\x124'"),
        ("w.caffemodel", b"\x0a\x08ResNet50", "it is a Caffe model"),
        ("w.pb", b"\x0a\x08", "it is a graph of TensorFlow"),
        ("w.bin", b"\x0a\x08", "none of torch, pickle and safetensors"),
    ],
)
def test_other_formats_are_named_with_the_way_to_read_them(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FileError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: it is not a file of weights: ")


@pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
def test_numpys_archives_and_their_arrays_as_a_state_dict(tmp_path, save):
    model = resnet_cuda.resnet_fpn_backbone("resnet18")
    path = tmp_path / "w.npz"
    save(path, **{key: value.numpy() for key, value in model.state_dict().items()})
    with pytest.raises(
        FileError, match=r"it is a file of numpy\.savez; read it with numpy\.load and hand over a state"
    ):
        resnet_cuda.load_weights(model, path)
    with numpy.load(path) as arrays:
        report = resnet_cuda.load_weights(model, {key: torch.from_numpy(arrays[key]) for key in arrays})
    assert not report.missing and not report.unexpected


def test_keras_archives(tmp_path):
    path = tmp_path / "w.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "")
    with pytest.raises(FileError, match=r"it is a Keras file; .* kernels \(kh, kw, in, out\) permuted to"):
        read(path)
