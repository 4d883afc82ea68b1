"""A backbone exported to ONNX and run by ONNX Runtime and by OpenVINO, with torch's number of threads."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.results import Settings

OPSET = 19  # the first with DeformConv

Call = Callable[[], Mapping[str, Tensor]]


class NotThereError(Exception):
    """What a runtime does not do here, in one line."""


class _Levels(nn.Module):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image).values())


def export(backbone: nn.Module, image: Tensor, path: Path) -> list[str]:
    """Exports to ``path`` for images of exactly this size; optimisation is left to the runtime.

    Returns the levels' names, in the order of the outputs.
    """
    import onnx  # noqa: F401 - both exporters write with it

    names = list(backbone(image))
    options: dict = {"external_data": False, "verbose": False, "opset_version": OPSET}
    options |= {"input_names": ["image"], "output_names": [f"level_{name}" for name in names]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(_Levels(backbone), (image,), path, dynamo=True, **options)
        except torch.onnx.OnnxExporterError as error:
            raise NotThereError(f"torch.onnx.export: {error}") from error
    return names


def onnx_runtime(backbone: nn.Module, image: Tensor, settings: Settings) -> Call:
    import onnxruntime

    if settings.dtype != torch.float32 or settings.device.type != "cpu":
        raise NotThereError(f"not measured in {settings.dtype} on {settings.device.type}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        names = export(backbone, image.contiguous(), Path(folder) / "backbone.onnx")
        path = str(Path(folder) / "backbone.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"image": image.contiguous().numpy()}

    def call() -> Mapping[str, Tensor]:
        return {name: torch.from_numpy(it) for name, it in zip(names, session.run(None, feed), strict=True)}

    return call


def openvino(backbone: nn.Module, image: Tensor, settings: Settings, by_onnx: bool) -> Call:
    """``by_onnx``: from an ONNX file; else by its own front end for PyTorch, which knows torchvision's deformable
    convolution while that for ONNX has none."""
    import openvino as runtime

    precisions = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
    if settings.device.type != "cpu":
        raise NotThereError(f"not measured on {settings.device.type}")
    core = runtime.Core()
    precision = precisions[settings.dtype]
    if precision != "f32" and precision.upper() not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise NotThereError(f"this processor has no {precision} for it")
    properties = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    image = image.contiguous()
    with tempfile.TemporaryDirectory() as folder:
        if by_onnx:
            names = export(backbone, image, Path(folder) / "backbone.onnx")
            source = core.read_model(str(Path(folder) / "backbone.onnx"))
        else:
            names = list(backbone(image))
            source = runtime.convert_model(_Levels(backbone), example_input=image, input=[image.shape])
        model = core.compile_model(source, "CPU", properties)
    request = model.create_infer_request()
    feed = {0: image.numpy()}

    def call() -> Mapping[str, Tensor]:
        results = request.infer(feed, share_inputs=True, share_outputs=True)
        return {name: torch.from_numpy(results[index]) for index, name in enumerate(names)}

    return call
