"""torch.set_default_device, and ``with torch.device(...)``: say where new models are made, not where files are read.

The meta device stands for a GPU: a tensor that is made there without being asked for has no values.
"""

from __future__ import annotations

import pytest
import torch
from helpers.networks import narrow_fpn, randomise
from helpers.tiny_networks import tiny

from resnet_cuda import calibrate, load_weights
from resnet_cuda.weights import files
from resnet_cuda.weights.convert import convert

META = torch.device("meta")


def legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS = {
    "torch": torch.save,
    "torch's old format": legacy,
    "safetensors": lambda state, path: files.write(state, path, "safetensors"),
    "pickle": lambda state, path: files.write(state, path, "pickle"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_are_read(kind, tmp_path):
    pytest.importorskip("safetensors")
    state = randomise(narrow_fpn()).state_dict()
    WRITERS[kind](state, tmp_path / "weights")
    model = narrow_fpn()
    with META:
        load_weights(model, tmp_path / "weights")
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


def test_pixels_are_converted():
    there = convert(randomise(narrow_fpn()).state_dict(), "detectron2").weights
    expected, model = narrow_fpn(), narrow_fpn()
    load_weights(expected, there, pixels="torchvision")
    with META:
        load_weights(model, there, pixels="torchvision")
    assert torch.equal(model.body.conv1.weight, expected.body.conv1.weight)


def test_a_detectors_pixels_are_known():
    detection = pytest.importorskip("torchvision.models.detection")
    there = convert(narrow_fpn().state_dict(), "caffe2").weights
    model = detection.FasterRCNN(narrow_fpn(), num_classes=3)
    with META, pytest.warns(UserWarning, match="pixels='torchvision'"):
        load_weights(model, there)


def test_statistics_are_measured():
    images = torch.rand(2, 3, 64, 64)
    model = narrow_fpn()
    with META:
        assert calibrate(model, images) == 20
    assert not torch.equal(model.body.bn1.running_mean, torch.zeros(8))


@pytest.mark.filterwarnings("ignore")  # of the exporters
def test_an_onnx_file_is_checked(registered, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from resnet_cuda.export import export_onnx

    network = tiny().eval()
    with META:
        report = export_onnx(network, tmp_path / "a.onnx", size=(80, 112))
    assert report.difference < 1e-4
