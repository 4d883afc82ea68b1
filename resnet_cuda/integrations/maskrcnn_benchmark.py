"""maskrcnn-benchmark's own models on today's torch, without compiling it.

>>> import resnet_cuda.integrations.maskrcnn_benchmark as integration
>>> integration.install()  # before maskrcnn_benchmark's modules are imported
>>> from maskrcnn_benchmark.modeling.detector import build_detection_model

``install`` replaces two of maskrcnn-benchmark's modules: ``maskrcnn_benchmark.layers`` (by this package's layers and
torchvision's nms, RoI align and RoI pool) and ``maskrcnn_benchmark.modeling.backbone.resnet`` (by
:mod:`resnet_cuda.resnet`). The compiled ``maskrcnn_benchmark._C`` is not needed. Configurations, parameter names and
the training loop do not change. Names that torch, NumPy and OpenCV have removed are replaced in the source as it is
imported; no file is written. Without apex a substitute for ``apex.amp`` supports ``DTYPE: "float32"`` only.

Not supported: deformable RoI pooling, which raises when it is constructed or called.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from resnet_cuda import resnet
from resnet_cuda.integrations._maskrcnn_benchmark_layers import LAYERS, NewEmptyTensorOp
from resnet_cuda.integrations._peer import missing

PACKAGE = "maskrcnn_benchmark"
_LAYERS, _RESNET = f"{PACKAGE}.layers", f"{PACKAGE}.modeling.backbone.resnet"
_MISC = ("Conv2d", "ConvTranspose2d", "BatchNorm2d", "DFConv2d", "interpolate")
# By module: what it says and what it must say today.
_NUMPY = (r"\bnp\.(float|bool|int)\b", r"\1")
_SIX = (r"\btorch\._six\.PY3\b", "True")
_OLD_NAMES = {
    f"{PACKAGE}.modeling.rpn.anchor_generator": _NUMPY,
    f"{PACKAGE}.data.datasets.evaluation.cityscapes.eval_instances": _NUMPY,
    f"{PACKAGE}.modeling.roi_heads.keypoint_head.inference": (
        r"\(roi_map_width, roi_map_height\)",  # OpenCV takes no floats any more
        "(int(roi_map_width), int(roi_map_height))",
    ),
    f"{PACKAGE}.utils.c2_model_loading": _SIX,
    f"{PACKAGE}.utils.imports": _SIX,
    f"{PACKAGE}.utils.model_zoo": (r"\b_download_url_to_file\b", "download_url_to_file"),
}


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a file with today's names; the interpreter's cache of compiled files is neither read nor written."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path).decode()
        return self.source_to_code(re.sub(*_OLD_NAMES[fullname], source).encode(), path)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _OLD_NAMES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


@contextlib.contextmanager
def _scale_loss(loss: Tensor, optimizers: Any, **_: Any) -> Iterator[Tensor]:
    yield loss


def _initialize(models: Any, optimizers: Any = None, enabled: bool = True, opt_level: str = "O1", **_: Any) -> Any:
    if enabled and opt_level != "O0":
        raise ValueError(f"apex is not installed: opt_level is {opt_level!r}; it must be 'O0' (DTYPE: float32)")
    return models if optimizers is None else (models, optimizers)


def _init(enabled: bool = True, **_: Any) -> None:
    if enabled:
        raise ValueError("apex is not installed: enabled is True; it must be False (DTYPE: float32)")


_AMP = {
    "float_function": lambda function: function,
    "half_function": lambda function: function,
    "scale_loss": _scale_loss,
    "initialize": _initialize,
    "init": _init,
}


def _module(name: str, names: dict[str, Any], package: bool = False) -> types.ModuleType:
    module = types.ModuleType(name, f"Made by {__name__}.install().")
    module.__dict__.update(names)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=package)
    if package:
        module.__path__ = []
    sys.modules[name] = module
    return module


def install() -> None:
    """Makes maskrcnn_benchmark use this package's modules; a second call does nothing.

    Raises:
        ImportError: if maskrcnn_benchmark is not on the Python path.
        RuntimeError: if one of the modules to replace has already been imported.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    early = [name for name in (_LAYERS, _RESNET, *_OLD_NAMES) if name in sys.modules]
    if early:
        raise RuntimeError(f"{', '.join(early)} imported already; call {__name__}.install() before")
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise missing("maskrcnn_benchmark", "a checkout of maskrcnn-benchmark on the Python path", error) from error
    sys.meta_path.insert(0, _Finder())
    package.layers = _module(_LAYERS, {**LAYERS, "__all__": list(LAYERS)}, package=True)
    misc = {**{name: LAYERS[name] for name in _MISC}, "_NewEmptyTensorOp": NewEmptyTensorOp}
    package.layers.misc = _module(f"{_LAYERS}.misc", misc)
    sys.modules[_RESNET] = resnet
    if importlib.util.find_spec("apex") is None:
        _module("apex", {"amp": _module("apex.amp", _AMP)}, package=True)
