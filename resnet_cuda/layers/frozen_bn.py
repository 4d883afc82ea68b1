"""FrozenBatchNorm2d: batch normalisation whose statistics and affine parameters are constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from resnet_cuda.layers.dead_channels import warn_of_dead_channels
from resnet_cuda.layers.replace import replace_layers
from resnet_cuda.ops.frozen_bn import frozen_batch_norm
from resnet_cuda.patched import Originals
from resnet_cuda.reference.checks import compute_dtype
from resnet_cuda.reference.frozen_bn import scale_and_shift

_BUFFERS = ("weight", "bias", "running_mean", "running_var")
_NARROW = (torch.float16, torch.bfloat16)


class FrozenBatchNorm2d(nn.Module):
    """``y = (x - running_mean) / sqrt(running_var + eps) * weight + bias``, with all four as buffers of shape (C,).

    The buffers have torchvision's, maskrcnn-benchmark's and detectron2's names; they stay float32 under ``.half()`` and
    ``.bfloat16()``, and 16-bit activations stay 16-bit. The forward is one pass over memory.

    Every call uses the buffers' current values, even after a broadcast by DDP, weight averaging or a write through
    NumPy. Its backward uses the values of its forward.

    There is no ``momentum``: no call updates the statistics. :func:`resnet_cuda.calibrate` measures them once;
    ``torch.nn.BatchNorm2d`` (``norm_layer="bn"``) tracks them.

    Args:
        num_features: C.
        eps: added to the variance; 1e-5 as in torchvision and detectron2, 0 in maskrcnn-benchmark's backbones.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167) with constant statistics [torchvision.ops.FrozenBatchNorm2d].
    """

    if TYPE_CHECKING:  # TorchScript cannot resolve names in these
        weight: Tensor
        bias: Tensor
        running_mean: Tensor
        running_var: Tensor

    # TorchScript compiles a block for the norm that it has, and sees this attribute only as a constant.
    takes_residual = True
    __constants__: tuple[str, ...] = ("takes_residual",)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls):
            cls.__constants__ = ()

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        # Also where models are built in 16 bits: statistics that are loaded then keep their values.
        dtype = torch.float32 if torch.get_default_dtype() in _NARROW else None
        self.register_buffer("weight", torch.ones(num_features, dtype=dtype))
        self.register_buffer("bias", torch.zeros(num_features, dtype=dtype))
        self.register_buffer("running_mean", torch.zeros(num_features, dtype=dtype))
        self.register_buffer("running_var", torch.ones(num_features, dtype=dtype))

    def forward(self, x: Tensor, residual: Tensor | None = None, relu: bool = False, inplace: bool = False) -> Tensor:
        """Normalises ``x``, adds ``residual``, applies ReLU: one pass over memory.

        Args:
            x: (N, C, H, W), float64, float32, float16 or bfloat16; any strides, may be empty.
            residual: x's shape, or None. Of another dtype than x's (FSDP's ``output_dtype`` may cause that): sum and
                ReLU are passes of their own, not in place, and the result has the dtype of torch's ``+``.
            relu: whether to clamp at 0.
            inplace: overwrite x and return it; only where no backward needs x's values.

        Returns:
            x's shape, dtype and layout.

        Raises:
            ValueError, RuntimeError: as :func:`resnet_cuda.ops.frozen_bn_relu`; also for a buffer that requires a
                gradient.
        """
        if torch.jit.is_scripting():
            # Never in place: torch.jit.optimize_for_inference drops in-place operators that it does not know.
            return torch.ops.resnet_cuda.frozen_batch_norm(
                x, self.weight, self.bias, self.running_mean, self.running_var, float(self.eps), residual, relu, True
            )[0]
        weight, bias, mean, variance = self._constants()
        return frozen_batch_norm(x, weight, bias, mean, variance, self.eps, residual, relu, inplace)

    def _constants(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = self._buffers  # not self.weight: Module.__getattr__ costs 0.6 us each time
        try:
            return own["weight"], own["bias"], own["running_mean"], own["running_var"]  # type: ignore[return-value]
        except KeyError:  # one of them was made a parameter
            return self.weight, self.bias, self.running_mean, self.running_var

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """``weight / sqrt(running_var + eps)`` and ``bias - running_mean * scale``, both (C,), float32 or float64."""
        dtype = compute_dtype(self.running_var)
        return scale_and_shift(self.weight, self.bias, self.running_mean, self.running_var, self.eps, dtype)

    def _apply(self, fn, recurse=True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if buffer is not None and self._buffers[name].dtype in _NARROW and buffer.dtype not in _NARROW:
                self._buffers[name] = buffer.to(self._buffers[name].device)
        return self

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        # BatchNorm2d's counter, which a frozen layer does not have.
        state_dict.pop(prefix + "num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        warn_of_dead_channels(prefix, self.running_var, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}"

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """``module`` with every BatchNorm2d and SyncBatchNorm in it replaced by a frozen copy
        [detectron2.layers.FrozenBatchNorm2d.convert_frozen_batchnorm].

        Values, eps, device and training mode are kept; 16-bit values become float32, as in any frozen layer. Norms and
        tensors that are shared stay shared.

        Raises:
            ValueError: for a norm without running statistics, of a subclass that overrides forward (it may compute
                something else), or with hooks or parametrizations. Nothing has changed then.
        """
        function = "convert_frozen_batchnorm"
        tensors: dict[int, tuple[Tensor, Tensor]] = {}

        def make(layer: Any) -> nn.Module:
            if type(layer).forward not in Originals("forward", nn.BatchNorm2d, nn.SyncBatchNorm):
                raise ValueError(f"{function}: {type(layer).__name__} has a forward of its own; it cannot be frozen")
            if layer.running_mean is None:
                raise ValueError(f"{function}: a BatchNorm without running statistics cannot be frozen")
            frozen = cls(layer.num_features, layer.eps).to(layer.running_mean.device)
            for name in _BUFFERS:
                source = getattr(layer, name)
                if source is not None:
                    dtype = torch.float32 if source.dtype in _NARROW else source.dtype
                    frozen._buffers[name] = _copied(source, tensors, dtype)
            return frozen

        return replace_layers(function, module, lambda it: isinstance(it, (nn.BatchNorm2d, nn.SyncBatchNorm)), make)

    @classmethod
    def convert_frozenbatchnorm2d_to_batchnorm2d(cls, module: nn.Module) -> nn.Module:
        """``module`` with every FrozenBatchNorm2d in it replaced by a BatchNorm2d with its values
        [detectron2.layers.FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d].

        In evaluation mode it computes the same; in training mode it normalises with the batch's statistics and tracks
        them with torch's momentum, 0.1. ``weight`` and ``bias`` become parameters that require gradients, in frozen
        stages, too. ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` converts them to SyncBatchNorm. Values, eps,
        device, dtype and training mode are kept. Norms and tensors that are shared stay shared.

        Raises:
            ValueError: for a norm of a subclass that overrides forward, or with hooks or parametrizations. Nothing has
                changed then.
        """
        function = "convert_frozenbatchnorm2d_to_batchnorm2d"
        tensors: dict[int, tuple[Tensor, Tensor]] = {}

        def make(layer: Any) -> nn.Module:
            if type(layer).forward is not FrozenBatchNorm2d.forward:
                raise ValueError(f"{function}: {type(layer).__name__} has a forward of its own; it cannot be converted")
            norm = nn.BatchNorm2d(layer.num_features, layer.eps, device=layer.running_mean.device)
            for name in ("weight", "bias"):
                parameter = _copied(getattr(layer, name), tensors, None, nn.Parameter)
                norm._parameters[name] = cast("nn.Parameter", parameter)
            for name in ("running_mean", "running_var"):
                norm._buffers[name] = _copied(getattr(layer, name), tensors, None)
            return norm

        return replace_layers(function, module, lambda it: isinstance(it, FrozenBatchNorm2d), make)


def _copied(
    source: Tensor,
    made: dict[int, tuple[Tensor, Tensor]],
    dtype: torch.dtype | None,
    kind: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """A copy of ``source``, the one in ``made`` where there is one; ``made``: by id, sources and their copies."""
    if id(source) not in made:
        copied = source.detach().to(dtype or source.dtype, copy=True)
        made[id(source)] = source, copied if kind is None else kind(copied)
    return made[id(source)][1]
