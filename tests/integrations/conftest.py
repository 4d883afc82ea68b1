"""The libraries that the integrations are tested against: from PyPI where installed (``pip install .[peers]``), and
checkouts whose folders environment variables name."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # same.py


def checkout(variable: str, package: str) -> None:
    """Puts the checkout that ``variable`` names on the path, or skips."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"set {variable} to the folder of a checkout of {package}")
    if not (Path(folder) / package / "__init__.py").is_file():
        pytest.fail(f"{variable} is {folder!r}, in which there is no package {package}")
    if folder not in sys.path:
        sys.path.insert(0, folder)


class WithoutOperators(types.ModuleType):
    """A compiled extension whose operators are all there and none can be called."""

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*arguments, **options):
            raise NotImplementedError(f"{self.__name__}.{name} is not compiled")

        return operator


def deform_conv_v1(input, offset, weight, stride, padding, dilation, groups, deformable_groups, *_):
    import torchvision

    return torchvision.ops.deform_conv2d(input, offset, weight, None, stride, padding, dilation)


def deform_conv_v2(input, offset, mask, weight, bias, stride, padding, dilation, groups, deformable_groups):
    import torchvision

    return torchvision.ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


@pytest.fixture(scope="session")
def detectron2():
    """detectron2 from a checkout; torchvision's operator stands in for its compiled deformable convolutions."""
    for name in ("fvcore", "iopath", "omegaconf"):
        pytest.importorskip(name)
    checkout("RESNET_CUDA_TEST_DETECTRON2", "detectron2")
    sys.modules.setdefault("detectron2._C", WithoutOperators("detectron2._C"))
    import detectron2
    from detectron2 import _C  # noqa: F401
    from detectron2.layers import deform_conv
    from detectron2.modeling import BACKBONE_REGISTRY  # noqa: F401

    deform_conv.deform_conv, deform_conv.modulated_deform_conv = deform_conv_v1, deform_conv_v2
    import resnet_cuda.integrations.detectron2  # noqa: F401

    return detectron2


@pytest.fixture(scope="session")
def mmdet():
    """mmdet with mmcv-lite; torchvision's operator stands in for mmcv's compiled deformable convolutions."""
    pytest.importorskip("mmengine")
    pytest.importorskip("mmcv")
    sys.modules.setdefault("mmcv._ext", WithoutOperators("mmcv._ext"))
    pytest.importorskip("mmdet")
    import mmdet.models
    from mmcv.ops import deform_conv, modulated_deform_conv

    deform_conv.deform_conv2d, modulated_deform_conv.modulated_deform_conv2d = deform_conv_v1, deform_conv_v2
    import resnet_cuda.integrations.mmdetection  # noqa: F401

    return mmdet


@pytest.fixture(autouse=True)
def _float32_afterwards():
    yield
    torch.set_default_dtype(torch.float32)
