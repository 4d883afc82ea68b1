"""FrozenBatchNorm2d: batch normalisation whose statistics and affine parameters are constants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnet_cuda import ops
from resnet_cuda.layers.dead_channels import warn_of_dead_channels

_NARROW = (torch.float16, torch.bfloat16)


class FrozenBatchNorm2d(nn.Module):
    """``y = (x - running_mean) / sqrt(running_var + eps) * weight + bias``, with all four as buffers of shape (C,).

    The buffers have torchvision's, maskrcnn-benchmark's and detectron2's names; they stay float32 under ``.half()`` and
    ``.bfloat16()``, and 16-bit activations stay 16-bit. The forward is one call of :func:`resnet_cuda.ops.frozen_bn_relu`.

    Scale and shift are computed once and kept until a buffer changes. A change that autograd cannot see (through ``.data``)
    is picked up at the next ``train()``, ``eval()``, ``to()`` or ``load_state_dict()``.

    Args:
        num_features: C.
        eps: added to the variance; 1e-5 as in torchvision and detectron2, 0 in maskrcnn-benchmark's backbones.
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self._constants = None

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False, inplace: bool = False) -> Tensor:
        """Normalises ``x`` (N, C, H, W), adds ``residual``, applies ReLU; ``inplace`` overwrites x."""
        scale, shift = self.scale_and_shift()
        return ops.frozen_bn_relu(x, scale, shift, residual, relu, inplace)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """``weight / sqrt(running_var + eps)`` and ``bias - running_mean * scale``, both (C,) float32 or float64."""
        buffers = (self.weight, self.bias, self.running_mean, self.running_var)
        if torch.compiler.is_compiling() or any(buffer.is_inference() for buffer in buffers):
            return self._compute(*buffers)
        state = tuple((buffer, buffer._version) for buffer in buffers)
        kept = self._constants
        if kept is None or any(
            old is not new or old_version != version
            for (old, old_version), (new, version) in zip(kept[0], state, strict=True)
        ):
            with torch.no_grad():
                constants = self._compute(*buffers)
            if constants[0].is_inference() or type(constants[0]) is not Tensor:
                return constants  # made in inference mode or while tracing: of no use outside of it
            self._constants = kept = (state, constants)
        return kept[1]

    def _compute(self, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        scale = weight * (variance + self.eps).rsqrt()
        return scale, bias - mean * scale

    def _apply(self, fn, recurse=True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if self._buffers[name].dtype in _NARROW and buffer.dtype not in _NARROW:
                self._buffers[name] = buffer.to(self._buffers[name].device)
        self._constants = None
        return self

    def train(self, mode: bool = True):
        self._constants = None
        return super().train(mode)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_constants": None}

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        # BatchNorm2d has this counter, a frozen layer has no use for it.
        state_dict.pop(prefix + "num_batches_tracked", None)
        self._constants = None
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        warn_of_dead_channels(prefix, self.running_var, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """``module`` with every BatchNorm2d and SyncBatchNorm in it replaced by a frozen copy
        [detectron2.layers.FrozenBatchNorm2d.convert_frozen_batchnorm]."""
        if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
            if module.running_mean is None:
                raise ValueError("convert_frozen_batchnorm: a BatchNorm without running statistics cannot be frozen")
            frozen = cls(module.num_features, module.eps).to(module.running_mean.device)
            with torch.no_grad():
                for name in ("weight", "bias", "running_mean", "running_var"):
                    source = getattr(module, name)
                    if source is not None:
                        getattr(frozen, name).copy_(source)
            return frozen.train(module.training)
        for name, child in module.named_children():
            converted = cls.convert_frozen_batchnorm(child)
            if converted is not child:
                module.add_module(name, converted)
        return module
