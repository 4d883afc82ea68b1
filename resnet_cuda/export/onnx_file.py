"""Exports a network to an ONNX file that runs without PyTorch, and compares its outputs with PyTorch's."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cuda._arguments import flag, integer, pair
from resnet_cuda._atomic_write import replaceable, replacing
from resnet_cuda.export.detectors import exportable, foreign_part, translations
from resnet_cuda.export.signature import Example, Signature, signature_of
from resnet_cuda.export.verification import largest_difference
from resnet_cuda.ops import _onnx

OPSET = 20
EXPORTERS = ("dynamo", "torchscript")
TOLERANCE = 1e-3
_WHERE = "export_onnx"


@dataclass(frozen=True)
class OnnxExport:
    """Describes the file. ``str()`` is a short text.

    Attributes:
        path: the file.
        exporter: "dynamo" or "torchscript".
        opset: the version of ONNX's operators.
        input_name: "images", or "image" for a detector.
        input_shape: its sizes; those that may have any value by name: "batch", "height", "width".
        output_names: in the model's order.
        compared: the shapes of the inputs on which ONNX Runtime and PyTorch were compared.
        difference: the largest difference from PyTorch's outputs, relative to each output's largest value, over the
            inputs in ``compared``; None if ONNX Runtime is not installed or ``check`` is False.
    """

    path: Path
    exporter: str
    opset: int
    input_name: str
    input_shape: tuple[int | str, ...]
    output_names: tuple[str, ...]
    compared: tuple[tuple[int, ...], ...]
    difference: float | None

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.input_shape))
        lines = [f"{self.path}: opset {self.opset}, {self.input_name} ({shape}) -> {', '.join(self.output_names)}"]
        if self.difference is None:
            lines.append("not compared with PyTorch")
        else:
            sizes = " and ".join("x".join(map(str, size)) for size in self.compared)
            lines.append(
                f"ONNX Runtime gives PyTorch's outputs to {self.difference:.1e} of the largest value ({sizes})"
            )
        return "\n".join(lines)


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    size: Sequence[int] = (480, 640),
    example: Example | None = None,
    dynamic: bool = True,
    opset: int = OPSET,
    exporter: str | None = None,
    check: bool = True,
) -> OnnxExport:
    """Writes ``model`` in evaluation mode to an ONNX file, by ``torch.onnx.export``.

    A deformable convolution becomes ONNX's ``DeformConv``, a FrozenBatchNorm2d ``Mul`` and ``Add`` with constants. In
    the result of :func:`resnet_cuda.optimize_for_inference` all norms are already folded into convolutions. ONNX
    Runtime runs such files. The ONNX importers of OpenVINO and TensorRT lack DeformConv: see docs/deployment.md.

    The input is "images" (N, C, H, W), for a detector "image" (3, H, W). Outputs have the names of the model's own
    dictionary ("0".."3", "pool"; "boxes", "labels", "scores", "masks"), else those of its ``output_shape()``
    ("p2".."p6"), else "output_0" and so on; with ``exporter="torchscript"``, "0" is "output_0", too.

    Args:
        model: a network of one batch of images, or a detector of torchvision (a list of images), with float32
            parameters. It is not changed.
        path: the file, which is replaced only after the checks have passed. It contains all weights (below 2 GB).
            A replaced file's permissions stay; a symbolic link's target is replaced, not the link.
        size: height and width of the images that the network is traced with, and compared on.
        example: the input to trace with instead: a tensor (N, C, H, W), or for a detector a list of one (3, H, W).
        dynamic: whether batch, height and width may have any value; False fixes them to the example's, without
            ``example`` to a batch of 1 of ``size``.
        opset: the version of ONNX's operators, at least 18, for deformable layers 19; at most the newest that the
            installed onnx knows.
        exporter: "dynamo" is ``torch.onnx.export(dynamo=True)``, "torchscript" the older ``dynamo=False``. None uses
            "dynamo" except for detectors other than torchvision's Faster, Mask and Keypoint R-CNN and RetinaNet, and
            for those that override one of their methods.
        check: whether to run ONNX's checker and, if installed, ONNX Runtime on random images of two sizes.

    Returns:
        An :class:`OnnxExport`, which describes the file.

    Raises:
        ImportError: if onnx or, for "dynamo", onnxscript is missing.
        ValueError: naming the argument, its value and what is allowed. Also if the folder of ``path`` does not exist,
            if ``path`` is a directory, pipe or device, and for models of another dtype than float32: export
            ``model.float()``, and let the runtime lower the precision.
        RuntimeError: if the outputs differ from PyTorch's by more than 1e-3 of the largest value, or if
            ``torch.onnx.export`` cannot write this ``opset``.
    """
    path = Path(path)
    dynamic, check = flag(_WHERE, "dynamic", dynamic), flag(_WHERE, "check", check)
    signature = signature_of(_WHERE, model, pair(_WHERE, "size", size, 1), example, dynamic)
    if integer(_WHERE, "opset", opset, 1) < _onnx.OPSET and _is_deformable(model):
        raise ValueError(f"{_WHERE}: opset is {opset}; it must be at least {_onnx.OPSET}, the first with DeformConv")
    opset = integer(_WHERE, "opset", opset, 18)
    exporter = _exporter(exporter, model, signature)
    need_packages(exporter)
    _check_known(opset)
    _check_dtype(model)
    _check_path(path)
    with _evaluating(model), replacing(path) as written:
        names = signature.output_names(model)
        if exporter == "torchscript":  # which takes no number as a name
            names = tuple(f"output_{name}" if name.isdigit() else name for name in names)
        _write(model, signature, names, written, opset, dynamic, exporter)
        _check_written(written, opset)
        compared, difference = _checked(model, signature, written, dynamic) if check else ((), None)
    return OnnxExport(
        path, exporter, opset, signature.input_name, signature.shape(dynamic), names, compared, difference
    )


def _check_path(path: Path) -> None:
    try:
        target, _ = replaceable(path)
    except OSError as error:
        raise ValueError(f"{_WHERE}: path is {str(path)!r}; {error.strerror}") from None
    if not target.parent.is_dir():
        raise ValueError(f"{_WHERE}: path is {str(path)!r}; its folder must exist")


def onnx_translations() -> dict[Callable, Callable]:
    """``custom_translation_table`` for ``torch.onnx.export`` of an ``ExportedProgram`` made by ``torch.export``.

    It translates ``resnet_cuda::deform_conv2d``, which such a program contains. To export a module, no table is needed.
    Needs onnxscript.
    """
    return {torch.ops.resnet_cuda.deform_conv2d.default: _onnx.translation}


def _exporter(chosen: str | None, model: nn.Module, signature: Signature) -> str:
    if chosen is not None and chosen not in EXPORTERS:
        raise ValueError(f"{_WHERE}: exporter is {chosen!r}; it must be None, 'dynamo' or 'torchscript'")
    foreign = foreign_part(model) if signature.is_detector else None
    if chosen == "dynamo" and foreign is not None:
        raise ValueError(f"{_WHERE}: exporter is 'dynamo'; for this model it must be None or 'torchscript': {foreign}")
    return chosen or ("dynamo" if foreign is None else "torchscript")


def _write(
    model: nn.Module,
    signature: Signature,
    names: tuple[str, ...],
    path: str,
    opset: int,
    dynamic: bool,
    exporter: str,
) -> None:
    axes = signature.dynamic_axes() if dynamic else {}
    options: dict[str, Any] = {"input_names": [signature.input_name], "output_names": list(names)}
    example: Example = signature.example
    if exporter == "torchscript":
        options |= {"dynamo": False, "dynamic_axes": {signature.input_name: axes} if axes else None}
    else:
        options |= {"dynamo": True, "dynamic_shapes": (axes,) if axes else None, "external_data": False}
        options |= {"verbose": False}
        if signature.is_detector:
            model, example = exportable(model), _tensor(example)
            options |= {"custom_translation_table": translations()}
    with warnings.catch_warnings():  # about deprecations within the exporters, and of constants in a detector's trace
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (example,), path, opset_version=opset, **options)


def _check_known(opset: int) -> None:
    import onnx  # type: ignore[import-not-found, unused-ignore]

    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ValueError(
            f"{_WHERE}: opset is {opset}; it must be at most {newest}, the newest that onnx {onnx.__version__} knows"
        )


def _check_written(path: str, opset: int) -> None:
    """torch.onnx.export logs where it cannot convert to an opset, and writes another."""
    import onnx  # type: ignore[import-not-found, unused-ignore]

    imports = onnx.load(path, load_external_data=False).opset_import
    written = next((it.version for it in imports if it.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise RuntimeError(
            f"{_WHERE}: opset is {opset}, but torch.onnx.export cannot convert this model to it and gives a file of "
            f"opset {written}. Nothing was written; pass opset={written}, or a newer onnx may convert it"
        )


_DECIDED_BY_ROUNDING = (
    ". Detections of nearly equal scores may be decided otherwise, as random weights and a random image make common: "
    "give a photograph and trained weights, or check=False"
)


def _checked(
    model: nn.Module, signature: Signature, path: str, dynamic: bool
) -> tuple[tuple[tuple[int, ...], ...], float | None]:
    import onnx  # type: ignore[import-not-found, unused-ignore]

    onnx.checker.check_model(path, full_check=True)
    if importlib.util.find_spec("onnxruntime") is None:
        return (), None
    inputs = signature.inputs_to_compare(dynamic)
    difference = largest_difference(model, path, inputs)
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"{_WHERE}: ONNX Runtime's outputs differ from PyTorch's by {difference:.1e} of the largest value; at most "
            f"{TOLERANCE:.0e} is expected. Nothing was written{_DECIDED_BY_ROUNDING if signature.is_detector else ''}"
        )
    return tuple(tuple(_tensor(it).shape) for it in inputs), difference


def _tensor(example: Example) -> Tensor:
    return example if isinstance(example, Tensor) else example[0]


def need_packages(exporter: str | None) -> None:
    """Raises ImportError where the packages of ``exporter`` are not installed; None is "dynamo"."""
    packages = ["onnx"] if exporter == "torchscript" else ["onnx", "onnxscript"]
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"{_WHERE} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def _check_dtype(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ValueError(
                f"{_WHERE}: parameter {name} is {parameter.dtype}; it must be torch.float32: export model.float(), and "
                "let the runtime lower the precision"
            )


def _is_deformable(model: nn.Module) -> bool:
    from resnet_cuda.layers import DeformConv2d

    return any(isinstance(layer, DeformConv2d) for layer in model.modules())


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
