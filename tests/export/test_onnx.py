"""ONNX files: DeformConv, Mul, Add and Relu, any size, the same numbers under ONNX Runtime and OpenVINO."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers.networks import levels_of, narrow_cfg, randomise
from helpers.tiny_networks import detector, tiny
from torch import nn

from resnet_cuda import build_backbone, ops
from resnet_cuda.export import export_onnx, onnx_file, onnx_translations
from resnet_cuda.export.openvino import deform_conv_extension
from resnet_cuda.export.signature import Signature
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of the exporters
    pytest.mark.usefixtures("registered"),
]
SIZES = [(1, 3, 64, 96), (3, 3, 77, 45)]


def operators(path) -> Counter:
    graph = onnx.load(path).graph
    assert all(node.domain == "" for node in graph.node)
    return Counter(node.op_type for node in graph.node)


def runtime(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda *inputs: session.run(
        None, {it.name: x.numpy() for it, x in zip(session.get_inputs(), inputs, strict=True)}
    )


def assert_same(got, expected):
    assert len(got) == len(expected)
    for one, right in zip(got, expected, strict=True):
        assert right.any()
        largest = float(right.abs().max())
        torch.testing.assert_close(torch.as_tensor(one), right, rtol=1e-3, atol=1e-5 * largest)


def same_as(network, run, shapes=SIZES):
    for shape in shapes:
        x = torch.randn(shape)
        with torch.no_grad():
            assert_same(run(x), levels_of(network(x)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A plain and a deformable network and what was said of their files."""
    folder = tmp_path_factory.mktemp("onnx")
    made = {}
    for name, network in (("plain", tiny(dcn=False)), ("dcn", tiny(groups=2))):
        was_training = network.train().training
        report = export_onnx(network, folder / f"{name}.onnx", size=(80, 112))
        assert network.training == was_training
        made[name] = (network.eval(), report)
    assert sorted(path.name for path in folder.iterdir()) == ["dcn.onnx", "plain.onnx"]
    return made


@pytest.mark.parametrize("name", ["plain", "dcn"])
def test_a_backbone_under_onnx_runtime(name, files):
    network, report = files[name]
    same_as(network, runtime(report.path))
    assert report.difference < 1e-4
    assert len(report.compared) == 2
    assert report.input_shape == ("batch", 3, "height", "width")
    assert report.output_names == ("0", "1", "2", "3", "pool")
    model = onnx.load(report.path)
    assert [it.name for it in model.graph.output] == list(report.output_names)
    assert [it.dim_param for it in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", "", "height", "width"]


@pytest.mark.parametrize("name", ["plain", "dcn"])
def test_what_a_file_is_made_of(name, files):
    found = operators(files[name][1].path)
    norms = sum(isinstance(layer, FrozenBatchNorm2d) for layer in files[name][0].modules())
    assert found["DeformConv"] == (1 if name == "dcn" else 0)
    assert found["Mul"] == norms  # scale and shift are constants
    assert not {"Sqrt", "Reciprocal", "Where", "Equal", "BatchNormalization"} & set(found)


@pytest.mark.parametrize("name", ["plain", "dcn"])
def test_a_backbone_under_openvino(name, files):
    openvino = pytest.importorskip("openvino")
    network, report = files[name]
    core = openvino.Core()
    core.add_extension(deform_conv_extension())
    compiled = core.compile_model(core.read_model(report.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    same_as(network, lambda x: list(compiled(x.numpy()).values()))


class Layers(nn.Module):
    """v1 with groups and a bias, then v2 with two offset groups and per-axis geometry, offsets of several pixels."""

    def __init__(self):
        super().__init__()
        options = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)}
        self.v1 = DFConv2d(4, 8, with_modulated_dcn=False, groups=2, bias=True)
        self.v2 = DFConv2d(8, 6, deformable_groups=2, bias=True, **options)
        for layer in (self.v1, self.v2):
            nn.init.normal_(layer.offset.weight, std=0.5)
        self.register_buffer("scale", torch.rand(6))
        self.register_buffer("shift", torch.rand(6))

    def forward(self, x):
        return ops.frozen_bn_relu(self.v2(self.v1(x)), self.scale, self.shift)


@pytest.mark.parametrize("dynamo", [True, False])
def test_torchs_exporters_by_themselves(dynamo, tmp_path):
    """Neither needs a table nor a registration."""
    layers, path = Layers().eval(), tmp_path / "layers.onnx"
    axes = {0: "batch", 2: "height", 3: "width"}
    options = {"dynamic_shapes": (axes,), "verbose": False} if dynamo else {"dynamic_axes": {"x": axes}}
    torch.onnx.export(
        layers, (torch.randn(2, 4, 9, 11),), path, dynamo=dynamo, opset_version=19, input_names=["x"], **options
    )
    onnx.checker.check_model(str(path), full_check=True)
    assert operators(path)["DeformConv"] == 2
    run = runtime(path)
    for shape in ((2, 4, 9, 11), (3, 4, 7, 16)):
        x = torch.randn(shape)
        with torch.no_grad():
            assert_same(run(x), [layers(x)])


def test_a_program_of_torch_export(tmp_path):
    """It has the operator in it; the table translates it."""
    layers, path, x = Layers().eval(), tmp_path / "layers.onnx", torch.randn(2, 4, 9, 11)
    program = torch.export.export(layers, (x,))
    table = onnx_translations()
    table[torch.ops.resnet_cuda.frozen_bn_relu.default] = norm_translation
    torch.onnx.export(program, f=path, opset_version=20, custom_translation_table=table, verbose=False)
    with torch.no_grad():
        assert_same(runtime(path)(x), [layers(x)])


def norm_translation(input, scale, shift, residual, relu):
    from onnxscript import opset18 as op

    axes = op.Constant(value_ints=[1, 2])
    y = op.Add(op.Mul(input, op.Unsqueeze(scale, axes)), op.Unsqueeze(shift, axes))
    return op.Relu(y) if relu else y


def test_a_backbone_by_configuration_of_fixed_size(tmp_path):
    network = randomise(build_backbone(narrow_cfg("R-50-C4")))
    report = export_onnx(network, tmp_path / "c4.onnx", size=(48, 64), dynamic=False)
    assert report.output_names == ("res4",)
    assert report.input_shape == (1, 3, 48, 64)
    assert str(report).startswith(f"{tmp_path / 'c4.onnx'}: opset 20, images (1, 3, 48, 64) -> res4")
    same_as(network.eval(), runtime(report.path), [(1, 3, 48, 64)])


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_backbone_by_the_older_exporter(dynamic, tmp_path):
    network, path = tiny(groups=2).eval(), tmp_path / "older.onnx"
    report = export_onnx(network, path, size=(80, 112), exporter="torchscript", dynamic=dynamic)
    assert report.exporter == "torchscript"
    assert report.output_names == ("output_0", "output_1", "output_2", "output_3", "pool")
    assert operators(path)["DeformConv"] == 1
    same_as(network, runtime(path), SIZES if dynamic else [(1, 3, 80, 112)])


def test_a_detector_of_torchvision_by_the_older_exporter(tmp_path):
    """test_onnx_detectors.py has the newer one."""
    pytest.importorskip("torchvision")
    model = detector(tiny())
    report = export_onnx(model, tmp_path / "detector.onnx", example=[torch.rand(3, 70, 90)], exporter="torchscript")
    assert report.exporter == "torchscript"
    assert report.output_names == ("boxes", "labels", "scores", "masks")
    assert report.input_shape == (3, "height", "width")
    assert operators(report.path)["DeformConv"] == 1
    run, image = runtime(report.path), torch.rand(3, 80, 64)
    with torch.no_grad():
        expected = model([image])[0]
    assert len(expected["boxes"])
    for got, right in zip(run(image), expected.values(), strict=True):
        torch.testing.assert_close(torch.as_tensor(got), right, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("is_detector", [True, False])
def test_of_a_detector_the_error_says_what_makes_outputs_differ(is_detector, monkeypatch):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    monkeypatch.setattr(onnx.checker, "check_model", lambda *_, **__: None)
    monkeypatch.setattr(onnx_file, "largest_difference", lambda *_: 1.0)
    signature = Signature([torch.zeros(3, 8, 9)] if is_detector else torch.zeros(1, 3, 8, 9))
    with pytest.raises(RuntimeError, match=r"differ from PyTorch's by 1\.0e\+00 of .* Nothing was written") as caught:
        onnx_file._checked(nn.Identity(), signature, "a.onnx", True)
    assert is_detector == ("give a photograph and trained weights, or check=False" in str(caught.value))


def test_a_file_that_computes_something_else_is_not_left(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    network, path = Layers(), tmp_path / "layers.onnx"
    path.write_bytes(b"an older file")
    reference = ops.frozen_bn_relu

    def wrong(*arguments):
        result = reference(*arguments)
        return result * 1.01 if torch.onnx.is_in_onnx_export() else result

    monkeypatch.setattr(ops, "frozen_bn_relu", wrong)
    with pytest.raises(RuntimeError, match="ONNX Runtime's outputs differ from PyTorch's by 1.0e-02"):
        export_onnx(network, path, example=torch.randn(2, 4, 9, 11))
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("check", [True, False])
def test_a_file_of_another_opset_than_asked_for_is_refused(tmp_path, monkeypatch, check):
    """As torch.onnx.export writes one, which only logs that it could not convert the model."""
    export = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *inputs, opset_version, **more: export(*inputs, opset_version=18, **more)
    )
    with pytest.raises(
        RuntimeError, match=r"export_onnx: opset is 20, but .* opset 18\. Nothing was written; pass opset=18"
    ):
        export_onnx(nn.Conv2d(3, 4, 3), tmp_path / "x.onnx", size=(8, 9), opset=20, check=check)
    assert not list(tmp_path.iterdir())


def test_the_opset_is_that_of_the_file(tmp_path):
    newest = onnx.defs.onnx_opset_version()
    for opset in {18, min(21, newest)}:
        report = export_onnx(nn.Conv2d(3, 4, 3), tmp_path / "x.onnx", size=(8, 9), opset=opset, check=False)
        (written,) = onnx.load(tmp_path / "x.onnx").opset_import
        assert report.opset == written.version == opset


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "named pipe"), (tmp_path, "directory")):
        with pytest.raises(ValueError, match=f"export_onnx: path is '{path}'; it is a {kind}.*; it must be a regular"):
            export_onnx(nn.Conv2d(3, 4, 3), path)
    assert (tmp_path / "pipe").is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_a_link_is_written_through_and_permissions_stay(tmp_path):
    path, link = tmp_path / "x.onnx", tmp_path / "link.onnx"
    path.write_bytes(b"an older file")
    path.chmod(0o600)
    link.symlink_to("x.onnx")
    export_onnx(nn.Conv2d(3, 4, 3), link, size=(8, 9), check=False)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    assert operators(path)["Conv"] == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"model": tiny().half()},
            ValueError,
            r"parameter body.conv1.weight is torch.float16; .*model.float\(\)",
        ),
        ({"opset": 17}, ValueError, "opset is 17; it must be at least 19, the first with DeformConv"),
        ({"opset": 18}, ValueError, "opset is 18; it must be at least 19, the first with DeformConv"),
        ({"opset": 17, "model": tiny(dcn=False)}, ValueError, "opset is 17; it must be at least 18"),
        ({"opset": 60}, ValueError, r"opset is 60; it must be at most \d+, the newest that onnx"),
        ({"opset": 999, "exporter": "torchscript"}, ValueError, r"opset is 999; it must be at most \d+, the newest"),
        ({"path": Path("no") / "folder" / "x.onnx"}, ValueError, "path is 'no/folder/x.onnx'; its folder must exist"),
        ({"example": torch.zeros(3, 8, 8)}, ValueError, r"example is of shape \(3, 8, 8\); it must be a tensor"),
        ({"example": [torch.zeros(3, 8, 8)] * 2}, ValueError, "example is a list that is not of one image"),
        ({"size": (0, 4)}, ValueError, "size is .*; it must be at least 1"),
        ({"dynamic": "yes"}, ValueError, "dynamic is 'yes'; it must be True or False"),
        ({"exporter": "fx"}, ValueError, "exporter is 'fx'; it must be None, 'dynamo' or 'torchscript'"),
        ({"model": len}, ValueError, "model is a builtin_function_or_method; it must be a torch.nn.Module"),
    ],
)
def test_what_cannot_be_exported_is_named(change, error, message, tmp_path):
    arguments = {"model": tiny(), "path": tmp_path / "x.onnx", **change}
    with pytest.raises(error, match=f"export_onnx: {message}"):
        export_onnx(**arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_16_bit_deformable_layer_is_refused_by_both_exporters(dynamo, tmp_path):
    with pytest.raises(Exception, match=r"input is torch.bfloat16; for ONNX it must be torch.float32"):
        torch.onnx.export(
            Layers().bfloat16(), (torch.randn(2, 4, 9, 11).bfloat16(),), tmp_path / "x.onnx", dynamo=dynamo
        )
