"""resnet_cuda: the ResNet backbone for Mask R-CNN, with compiled deformable convolution and fused FrozenBatchNorm."""

from typing import TYPE_CHECKING

from resnet_cuda._version import __version__  # isort: skip
from resnet_cuda import config, fpn, layers, ops, reference, resnet
from resnet_cuda._backend import backend, use_backend
from resnet_cuda.acceleration import accelerate
from resnet_cuda.backbones import build_backbone
from resnet_cuda.calibration import calibrate
from resnet_cuda.inference import optimize_for_inference
from resnet_cuda.sampling import deformable_layers, sampling_density, sampling_points
from resnet_cuda.torchvision_backbone import resnet_fpn_backbone
from resnet_cuda.weights import LoadReport, load_weights

__all__ = [
    "LoadReport",
    "__version__",
    "accelerate",
    "backend",
    "build_backbone",
    "calibrate",
    "config",
    "deformable_layers",
    "fpn",
    "layers",
    "load_weights",
    "ops",
    "optimize_for_inference",
    "reference",
    "resnet",
    "resnet_fpn_backbone",
    "sampling_density",
    "sampling_points",
    "use_backend",
]


if TYPE_CHECKING:  # which a __getattr__ would give a type for every misspelt name
    from resnet_cuda import export as export
else:

    def __getattr__(name: str) -> object:
        """``resnet_cuda.export`` without an import of its own, and without its time where it is not used."""
        if name == "export":
            import importlib

            return importlib.import_module("resnet_cuda.export")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "export"})
