"""Tensors whose values torch negates or conjugates lazily: files keep the bit beside the stored values."""

from __future__ import annotations

import pickle

import pytest
import torch
from helpers.networks import narrow_fpn, randomise
from helpers.weight_files import saved, torch_zip

from resnet_cuda import load_weights
from resnet_cuda.__main__ import main
from resnet_cuda.weights.files import FileError, read, write


def negated(values):
    """Equal to ``values``, and stored with the other sign."""
    lazy = torch.complex(torch.zeros_like(values), -values).conj().imag
    assert lazy.is_neg()
    assert torch.equal(lazy, values)
    return lazy


def assert_settled(got, expected):
    assert not got.is_neg()
    assert not got.is_conj()
    assert torch.equal(got, expected.resolve_conj().resolve_neg())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_keeps_the_sign(tmp_path, legacy):
    path = tmp_path / "file.pth"
    values = torch.arange(6.0).reshape(2, 3) - 2
    number = torch.complex(values, values + 1)
    content = {
        "negated": negated(values),
        "transposed": negated(values).t(),
        "double": negated(values.double()),
        "parameter": torch.nn.Parameter(negated(values)),
        "conjugated": number.conj(),
        "both": torch._neg_view(number.conj()),
        "plain": values,
    }
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    got = read(path)
    assert got.keys() == content.keys()
    for key, expected in content.items():
        assert_settled(got[key], expected.detach())


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_loaded_with_their_sign(tmp_path, legacy):
    network, model, path = randomise(narrow_fpn()), narrow_fpn(), tmp_path / "file.pth"
    state = network.state_dict()
    floats = {key: negated(value) for key, value in state.items() if value.is_floating_point()}
    torch.save({**state, **floats}, path, _use_new_zipfile_serialization=not legacy)
    load_weights(model, path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert main(["convert", str(path), str(tmp_path / "out.pkl"), "--to", "detectron2"]) == 0
    load_weights(again := narrow_fpn(), tmp_path / "out.pkl")
    assert torch.equal(again.body.conv1.weight, network.body.conv1.weight)


@pytest.mark.parametrize("container", ["torch", "pickle", "safetensors"])
def test_files_are_written_with_the_sign(tmp_path, container):
    if container == "safetensors":
        pytest.importorskip("safetensors")
    path, values = tmp_path / "file", torch.arange(3.0) - 1
    write({"w": negated(values)}, path, container)
    assert_settled(read(path)["w"], values)


WRONG = {
    "unknown": ({"neg": True, "scale": 2}, "has the metadata 'scale'; known are 'neg' and 'conj'"),
    "no dictionary": ([1], "metadata is a list; it must be a dictionary"),
    "no bool": ({"neg": 1}, "metadata 'neg' is a int; it must be True or False"),
    "conjugated real numbers": ({"conj": True}, "of torch.float32 is marked as conjugated"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("version", [2, 3])
def test_other_metadata_is_refused(tmp_path, name, version):
    metadata, message = WRONG[name]
    path = tmp_path / "file"
    path.write_bytes(torch_zip(_pickled(metadata, version), {"0": bytes(4)}))
    with pytest.raises(FileError, match=message):
        read(path)


def test_negated_integers_are_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(torch_zip(_pickled({"neg": True}, 2, b"IntStorage"), {"0": bytes(4)}))
    with pytest.raises(FileError, match="of torch.int32 is marked as negated"):
        read(path)


@pytest.mark.parametrize("version", [2, 3])
def test_further_values_are_refused(tmp_path, version):
    path = tmp_path / "file"
    path.write_bytes(torch_zip(_pickled({}, version, more=b"N"), {"0": bytes(4)}))
    with pytest.raises(FileError, match="a tensor is built of . values; there must be"):
        read(path)


def test_metadata_without_a_bit_changes_nothing(tmp_path):
    path = tmp_path / "file"
    for metadata in (None, {}, {"neg": False, "conj": False}):
        path.write_bytes(torch_zip(_pickled(metadata, 2), {"0": b"\0\0\x80\x3f"}))
        assert read(path)["w"].tolist() == [1]
    assert read_saved(tmp_path, {"w": torch.ones(2)})["w"].tolist() == [1, 1]


def read_saved(folder, value):
    (folder / "saved").write_bytes(saved(value))
    return read(folder / "saved")


def _pickled(metadata, version, kind=b"FloatStorage", more=b""):
    """The pickle of {"w": a tensor of one element} with this metadata."""
    kind = kind if version == 2 else b"UntypedStorage"
    elements = b"K\1" if version == 2 else b"K\4"
    storage = b"(X\7\0\0\0storagectorch\n" + kind + b"\nX\1\0\0\x000X\3\0\0\0cpu" + elements + b"tQ"
    dtype = b"" if version == 2 else b"ctorch\nfloat32\n"
    plain = pickle.dumps(metadata, 2)[2:-1]
    rebuild = f"ctorch._utils\n_rebuild_tensor_v{version}\n".encode()
    call = rebuild + b"(" + storage + b"K\0K\1\x85K\1\x85\x89)" + dtype + plain + more + b"tR"
    return b"\x80\x02}X\1\0\0\0w" + call + b"s."
