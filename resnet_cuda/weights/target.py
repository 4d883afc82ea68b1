"""What a model has to fill: its keys by neutral name, and what its modules tell."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from resnet_cuda.layers import ModulatedDeformConv
from resnet_cuda.resnet import ResNetHead
from resnet_cuda.weights.checkpoint import Checkpoint, UnknownKeysError, recognise


@dataclass
class Target:
    """A model whose weights are read or written."""

    model: nn.Module
    checkpoint: Checkpoint

    @classmethod
    def of(cls, model: nn.Module, what: str = "model") -> Target:
        """``model`` recognised; ``what`` names it in errors."""
        state = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
        heads = [f"{name}." if name else "" for name, it in model.named_modules() if isinstance(it, ResNetHead)]
        try:
            return cls(model, recognise(state, heads=heads))
        except UnknownKeysError as error:
            raise ValueError(f"load_weights: {what} is a {type(model).__name__}: {error}") from None

    def module(self, name: str) -> nn.Module | None:
        """The module whose tensor has this neutral name; None where the key is not a module's (a parametrization)."""
        try:
            return self.model.get_submodule(self.checkpoint.keys[name].rpartition(".")[0])
        except (AttributeError, KeyError):
            return None

    def eps(self, norm: str) -> float:
        """Of the norm with this neutral name."""
        return float(getattr(self.module(f"{norm}.running_var"), "eps", self.checkpoint.format.eps))

    def stride_in_1x1(self) -> bool | None:
        """Where the bottlenecks stride; None without a strided bottleneck."""
        for stage in (3, 4, 5):
            convs = [self.module(f"res{stage}.0.conv{k}.weight") for k in (1, 2, 3)]
            strides = [getattr(conv, "stride", None) for conv in convs]
            if convs[2] is not None and strides[0] is not None and strides[1] is not None:
                first, second = (max(it) if isinstance(it, tuple) else it for it in strides[:2])
                if first != second:
                    return first > second
        return None

    def starts_with_half_a_mask(self, block: str) -> bool:
        """Whether a block's convolution is modulated and its masks are all sigmoid(0) = 0.5."""
        offsets = [self.checkpoint.tensors.get(f"{block}.offset.{leaf}") for leaf in ("weight", "bias")]
        is_zero = all(it is not None and not it.any() for it in offsets)
        return is_zero and isinstance(self.module(f"{block}.conv2.weight"), ModulatedDeformConv)

    def image_statistics(self) -> tuple[list[float], list[float]] | None:
        """Mean and std of a torchvision detector's transform."""
        for it in self.model.modules():
            mean, std = getattr(it, "image_mean", None), getattr(it, "image_std", None)
            if mean is not None and std is not None:
                return list(mean), list(std)
        return None
