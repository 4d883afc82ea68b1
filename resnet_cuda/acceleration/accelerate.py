"""accelerate: swaps the classes of modules in place; undo swaps them back."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

from resnet_cuda.exact import CALLING, peer_class
from resnet_cuda.layers import DeformConv2d, DFConv2d, FrozenBatchNorm2d
from resnet_cuda.patched import first_patched

# By the module of this folder that has their faster subclasses, which have the same names, the classes' own module.
_CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "torchvision": {
        "torchvision.ops.deform_conv": ("DeformConv2d",),
        "torchvision.ops.misc": ("FrozenBatchNorm2d", "Conv2dNormActivation"),
        "torchvision.models._utils": ("IntermediateLayerGetter",),
        "torchvision.models.resnet": ("BasicBlock", "Bottleneck", "ResNet"),
    },
    "timm": {
        "timm.layers.norm_act": ("FrozenBatchNormAct2d",),
        "timm.models._features": ("FeatureDictNet", "FeatureListNet"),
        "timm.models.resnet": ("BasicBlock", "Bottleneck", "ResNet"),
    },
    "detectron2": {
        "detectron2.layers.batch_norm": ("FrozenBatchNorm2d",),
        "detectron2.layers.deform_conv": ("DeformConv", "ModulatedDeformConv"),
        "detectron2.modeling.backbone.resnet": ("BasicBlock", "BottleneckBlock", "DeformBottleneckBlock", "BasicStem"),
    },
    "mmcv": {
        "mmcv.ops.deform_conv": ("DeformConv2d", "DeformConv2dPack"),
        "mmcv.ops.modulated_deform_conv": ("ModulatedDeformConv2d", "ModulatedDeformConv2dPack"),
    },
    "mmcv_cnn": {"mmcv.cnn.bricks.conv_module": ("ConvModule",)},
    "mmdetection": {"mmdet.models.backbones.resnet": ("BasicBlock", "Bottleneck", "ResNet", "ResNetV1d")},
    "maskrcnn_benchmark": {"maskrcnn_benchmark.layers.batch_norm": ("FrozenBatchNorm2d",)},
}
_OURS = (FrozenBatchNorm2d, DFConv2d, DeformConv2d)


@dataclass
class Acceleration:
    """The modules that :func:`accelerate` replaced, by their names in the model. ``str()`` is a short table."""

    replaced: dict[str, str] = field(default_factory=dict)  #: original class, by the module's name
    left: dict[str, str] = field(default_factory=dict)  #: layers that look alike, and why they stay
    _modules: list[tuple[nn.Module, type, type]] = field(default_factory=list, repr=False)

    def undo(self) -> None:
        """Restores the modules' original classes. Idempotent; a module whose class has changed since is skipped."""
        for module, before, after in self._modules:
            if type(module) is after:
                module.__class__ = before

    def __str__(self) -> str:
        counts = Counter(self.replaced.values())
        lines = [f"{count:5d} x {name}" for name, count in sorted(counts.items())] or ["nothing to replace"]
        reasons = Counter(self.left.values())
        lines += [f"{count:5d} left alone: {reason}" for reason, count in sorted(reasons.items())]
        return "\n".join(lines)


def accelerate(model: nn.Module) -> Acceleration:
    """Makes ``model`` run this package's operators, in place: the same modules, parameters, keys and outputs.

    Supported libraries: torchvision, detectron2, timm, mmdetection with mmcv, and maskrcnn-benchmark. Replaced are
    their FrozenBatchNorm2d, deformable convolutions, and ResNet blocks, stems and bodies, torchvision's
    Conv2dNormActivation and mmcv's ConvModule. In blocks and stems norm, residual sum and ReLU run in one pass after
    the convolution where the norm is constant (frozen, or a BatchNorm2d in eval mode whose parameters need no
    gradient).

    Training and hooks work. A block runs its library's own forward in any call where a fused part has a hook, the
    activation is not ReLU, or a norm is trained; in a stem only those parts run unfused.

    Each replaced module gets a subclass of its class, so that ``isinstance`` holds. Modules of subclasses, those with a
    ``forward`` set on them or put on their class by other code, and those of torchvision's networks for quantization
    stay as they are. A ``forward`` that is put on the class later has no effect on replaced modules. Copies and pickles
    of the model are accelerated, too. A module that torch.compile has compiled is compiled again. torch.jit.script
    cannot compile these forwards: call ``undo()`` first.

    Results equal the originals' up to rounding, with two exceptions. A frozen norm's result has its input's dtype, also
    if buffers are float32 and the input is not, as under autocast. At an offset that points to exactly one pixel
    outside the image, the derivative for the offset is torchvision's; detectron2's and mmcv's is 0.

    Args:
        model: any module tree, changed in place.

    Returns:
        An :class:`Acceleration`: which modules were replaced and which were not, with ``undo()``. It prints as a table.
        To undo the replacement in a copy of the model use :func:`restore`.

    Raises:
        TypeError: if ``model`` is not a module, or is scripted or traced.

    >>> print(resnet_cuda.accelerate(model))  # doctest: +SKIP
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"accelerate: model is a {type(model).__name__}; give the module that it was made of")
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model is a {type(model).__name__}; it must be a torch.nn.Module")
    swaps = _swaps()
    patched = {before: first_patched(before, _replaced(before, after)) for before, after in swaps.items()}
    quantizable = _quantizable(model)
    found = Acceleration()
    for name, module in model.named_modules():
        before = type(module)
        after = swaps.get(before)
        if after is None:
            reason = _why_left(module, swaps)
            if reason is not None:
                found.left[name] = reason
        elif "forward" in module.__dict__:
            found.left[name] = f"a forward is set on a {before.__name__}"
        elif patched[before] is not None:
            found.left[name] = f"{before.__module__}.{before.__name__}.{patched[before]} was replaced"
        elif module in quantizable:
            found.left[name] = f"fuse_model() of the network looks for {before.__module__}.{before.__name__} itself"
        else:
            module.__class__ = after
            found.replaced[name] = f"{before.__module__}.{before.__name__}"
            found._modules.append((module, before, after))
    return found


def restore(model: nn.Module) -> nn.Module:
    """Gives every accelerated module in ``model`` its library's class back, in place.

    Args:
        model: any module tree, such as a copy of an accelerated model.

    Returns:
        ``model``.
    """
    originals = {after: before for before, after in _swaps().items()}
    for module in model.modules():
        before = originals.get(type(module))
        if before is not None:
            module.__class__ = before
    return model


def _swaps() -> dict[type, type]:
    """Faster classes by the classes of libraries that are imported, without which no model has any of theirs."""
    swaps: dict[type, type] = {}
    for folder, modules in _CLASSES.items():
        for module, names in modules.items():
            for name in names:
                before = peer_class(f"{module}.{name}")
                if before is not None:
                    ours = importlib.import_module(f"resnet_cuda.acceleration.{folder}")
                    after = getattr(ours, name, None)
                    if after is not None and after.__mro__[1] is before:  # not one that a library has replaced since
                        swaps[before] = after
    return swaps


def _quantizable(model: nn.Module) -> set[nn.Module]:
    """The modules of torchvision's networks for quantization, whose ``fuse_model`` silently skips other classes."""
    return {it for module in model.modules() if hasattr(type(module), "fuse_model") for it in module.modules()}


def _replaced(before: type, after: type) -> tuple[str, ...]:
    """The methods of ``before`` that ``after`` overrides, and those by which torch calls them."""
    return *CALLING, *(name for name, it in vars(after).items() if callable(it) and hasattr(before, name))


def _why_left(module: nn.Module, swaps: dict[type, type]) -> str | None:
    if isinstance(module, _OURS) or type(module) in swaps.values():
        return None
    name = type(module).__name__
    for before in swaps:
        if isinstance(module, before):
            return f"{name} is a subclass of {before.__module__}.{before.__name__}"
    if "FrozenBatchNorm" in name or "DeformConv" in name:
        return f"{type(module).__module__}.{name} is of no known class"
    return None
