"""A convolution with bias, residual sum and ReLU in its epilogue, run by the fastest implementation available."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda.inference.packing import Packed
from resnet_cuda.inference.strategies import strategy_for
from resnet_cuda.ops._registration import needs_gradient, needs_registered_op, transformed


class FoldedConv2d(nn.Conv2d):
    """``relu(conv(x) + bias + residual)``: ``forward(input, residual=None, overwrite=False)``.

    The norm is folded into ``weight`` (O, C/groups, kh, kw), which is channels_last, and ``bias``. ``input``
    (N, C, H, W) of any strides is converted to channels_last, and the result (N, O, Ho, Wo) is channels_last.
    ``residual`` has the result's shape and dtype; with ``overwrite`` the result may overwrite it.

    Under torch.compile, torch.export, tracing and TorchScript, in dispatch modes and where a gradient is needed it runs
    torch's own operators.
    """

    if TYPE_CHECKING:  # TorchScript cannot resolve names in these
        relu: bool  #: whether a ReLU ends it
        packed: Packed

    # TorchScript compiles what this layer is; a block asks for the second one, which other layers do not have.
    adds_residual = True
    __constants__ = [*nn.Conv2d.__constants__, "relu", "adds_residual"]

    @classmethod
    def take_over(cls, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        """Converts ``conv`` in place to this class, so that existing references to it stay valid."""
        conv._parameters["weight"] = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), False)
        conv._parameters["bias"] = None if bias is None else nn.Parameter(bias, False)
        conv.relu, conv.packed = relu, Packed()  # type: ignore[assignment]
        conv.__class__ = cls

    def forward(self, input: Tensor, residual: Tensor | None = None, overwrite: bool = False) -> Tensor:
        if torch.jit.is_scripting():
            return self.functional(input, residual)
        if recorded(input) or needs_gradient(input, residual):
            return self.functional(input, residual)
        if input.dim() == 4:
            input = input.contiguous(memory_format=torch.channels_last)
        return strategy_for(self, input, residual)(self, input, residual, overwrite)

    def functional(self, input: Tensor, residual: Tensor | None = None, relu: bool = True) -> Tensor:
        """The same by torch's operators, nothing in place; with the ReLU only if ``relu``."""
        out = self._conv_forward(input, self.weight, self.bias)
        if residual is not None:
            out = out + residual
        return F.relu(out) if relu and self.relu else out

    def is_plain(self) -> bool:
        """Whether the padding is explicit numbers of zeros, which the fused operators need."""
        return self.padding_mode == "zeros" and not isinstance(self.padding, str)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.packed.clear()  # of another device or dtype
        return self

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        self.packed.clear()  # tensors of inference mode do not tell that they were written to

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"


def recorded(input: Tensor) -> bool:
    """Whether this call is traced, transformed or under a dispatch mode: torch's own operators run then."""
    return isinstance(input, Proxy) or needs_registered_op() or transformed()
