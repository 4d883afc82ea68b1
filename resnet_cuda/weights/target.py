"""The model to load into: its keys by neutral name, and properties of its modules."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnet_cuda.resnet import ResNet, ResNetHead
from resnet_cuda.weights.checkpoint import WRAPPED_PARTS, Checkpoint, UnknownKeysError, recognise
from resnet_cuda.weights.formats import MASKRCNN_BENCHMARK
from resnet_cuda.weights.unwrap import AVERAGE_COUNTER


def _without_last_wrappers(path: str) -> str:
    parts = path.split(".")
    while parts and parts[-1] in WRAPPED_PARTS:
        parts.pop()
    return ".".join(parts)


def without_wrappers(module: nn.Module) -> nn.Module:
    """What wrappers of a part have in them: torch.compile's, activation checkpointing's, FSDP's."""
    while True:
        inner = next((it for name, it in module.named_children() if name in WRAPPED_PARTS), None)
        if inner is None:
            return module
        module = inner


@dataclass
class Target:
    """A model whose weights are read or written."""

    model: nn.Module
    checkpoint: Checkpoint

    @classmethod
    def of(cls, model: nn.Module, where: str = "load_weights: model") -> Target:
        """``model`` recognised; ``where`` is its name in errors."""
        ours = any(isinstance(it, (ResNet, ResNetHead)) for it in model.modules())
        state = {
            key: value
            for key, value in model.state_dict().items()
            if isinstance(value, Tensor) and key != AVERAGE_COUNTER
        }
        heads = [f"{name}." if name else "" for name, it in model.named_modules() if isinstance(it, ResNetHead)]
        try:
            return cls(model, recognise(state, heads=heads, prefer=MASKRCNN_BENCHMARK if ours else None, is_model=True))
        except UnknownKeysError as error:
            raise ValueError(f"{where} is a {type(model).__name__}: {error}") from None

    def module(self, name: str) -> nn.Module | None:
        """The module whose tensor has this neutral name; None if the key is not a module's (a parametrization)."""
        key = self.checkpoint.keys.get(name)
        return None if key is None else self._submodule(key.rpartition(".")[0])

    def around(self, name: str, inner: str = "") -> nn.Module | None:
        """The module that contains the layer with this tensor; ``inner`` may end its name, as mmcv's ``.conv``."""
        path = _without_last_wrappers(self.checkpoint.keys[name].rpartition(".")[0])
        path = _without_last_wrappers(path.removesuffix(inner))
        return self._submodule(path.rpartition(".")[0])

    def _submodule(self, path: str) -> nn.Module | None:
        """Without what wraps it."""
        try:
            return without_wrappers(self.model.get_submodule(path))
        except AttributeError:
            return None

    def eps(self, norm: str) -> float:
        """The epsilon of the norm with this neutral name."""
        return float(getattr(self.module(f"{norm}.running_var"), "eps", self.checkpoint.format.eps))

    def stride_in_1x1(self) -> bool | None:
        """Whether the bottlenecks' stride is in the first 1x1; None without a strided bottleneck."""
        for stage in (3, 4, 5):
            convs = [self.module(f"res{stage}.0.conv{k}.weight") for k in (1, 2, 3)]
            strides = [getattr(conv, "stride", None) for conv in convs]
            if convs[2] is not None and strides[0] is not None and strides[1] is not None:
                first, second = (max(it) if isinstance(it, tuple) else it for it in strides[:2])
                if first != second:
                    return first > second
        return None

    def has_zero_offsets(self, block: str) -> bool:
        """Whether the convolution that predicts a block's offsets (and masks) is all zero."""
        tensors = [self.checkpoint.tensors.get(f"{block}.offset.{leaf}") for leaf in ("weight", "bias")]
        return all(it is not None and not it.any() for it in tensors)

    def is_modulated(self, block: str) -> bool:
        """Whether a block's deformable convolution is v2, for classes of this package, detectron2 and mmcv."""
        layer = self.module(f"{block}.conv2.weight")
        return any("ModulatedDeformConv" in kind.__name__ for kind in type(layer).__mro__)

    def image_statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and std for values 0 to 255, from a torchvision detector's transform or a detectron2 model."""
        for it in self.model.modules():
            mean, std, scale = getattr(it, "image_mean", None), getattr(it, "image_std", None), 255.0
            if mean is None or std is None:
                mean, std, scale = getattr(it, "pixel_mean", None), getattr(it, "pixel_std", None), 1.0
            if mean is not None and std is not None:
                lists = [
                    torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten() * scale for value in (mean, std)
                ]
                return lists[0].tolist(), lists[1].tolist()
        return None
