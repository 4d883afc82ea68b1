"""A convolution with bias, residual sum and ReLU in its epilogue, run the fastest way that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda.inference.packing import Packed
from resnet_cuda.inference.strategies import strategy_for
from resnet_cuda.ops._registration import needs_registered_op, transformed


class FoldedConv2d(nn.Conv2d):
    """``relu(conv(x) + bias + residual)``: ``forward(input, residual=None, overwrite=False)``.

    ``weight`` (O, C/groups, kh, kw) is channels_last and, as ``bias``, has the norm in it. ``input`` (N, C, H, W) of
    any strides is made channels_last, and so is the result (N, O, Ho, Wo). ``residual`` has the result's shape and
    dtype; ``overwrite``: its memory may be the result's.

    Under torch.compile, torch.export, tracing and TorchScript, in dispatch modes and where a gradient is needed it is
    made of torch's own operators.
    """

    if TYPE_CHECKING:  # TorchScript cannot resolve names in these
        relu: bool  #: whether a ReLU ends it
        packed: Packed

    # TorchScript compiles what this layer is; a block asks for the second one, which other layers do not have.
    adds_residual = True
    __constants__ = [*nn.Conv2d.__constants__, "relu", "adds_residual"]

    @classmethod
    def take_over(cls, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        """Makes ``conv`` one of these, so that whoever refers to it has the new one."""
        conv._parameters["weight"] = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), False)
        conv._parameters["bias"] = None if bias is None else nn.Parameter(bias, False)
        conv.relu, conv.packed = relu, Packed()  # type: ignore[assignment]
        conv.__class__ = cls

    def forward(self, input: Tensor, residual: Tensor | None = None, overwrite: bool = False) -> Tensor:
        if torch.jit.is_scripting():
            return self.functional(input, residual)
        if recorded(input) or _needs_gradient(input, residual):
            return self.functional(input, residual)
        if input.dim() == 4:
            input = input.contiguous(memory_format=torch.channels_last)
        return strategy_for(self, input, residual)(self, input, residual, overwrite)

    def functional(self, input: Tensor, residual: Tensor | None = None, relu: bool = True) -> Tensor:
        """The same of torch's operators, nothing in place; without the ReLU unless ``relu``."""
        out = self._conv_forward(input, self.weight, self.bias)
        if residual is not None:
            out = out + residual
        return F.relu(out) if relu and self.relu else out

    def is_plain(self) -> bool:
        """Whether zeros pad it, by as many rows and columns as ``padding`` says: what the fused operators take."""
        return self.padding_mode == "zeros" and not isinstance(self.padding, str)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.packed.clear()  # of another device or dtype
        return self

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"


def recorded(input: Tensor) -> bool:
    """Whether this call is traced, transformed or seen by a dispatch mode, for which torch's own operators run."""
    return isinstance(input, Proxy) or needs_registered_op() or transformed()


def _needs_gradient(input: Tensor, residual: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (input.requires_grad or (residual is not None and residual.requires_grad))
