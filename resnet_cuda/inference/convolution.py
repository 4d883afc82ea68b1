"""A convolution with bias, residual sum and ReLU in its epilogue, run by the fastest implementation available."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from resnet_cuda.inference.packing import Packed
from resnet_cuda.inference.strategies import strategy_for
from resnet_cuda.layers.overwriting import nobody_records
from resnet_cuda.ops._registration import needs_gradient


class FoldedConv2d(nn.Module):
    """``relu(conv(x) + bias + residual)``: ``forward(input, residual=None, overwrite=False)``.

    The norm is folded into ``weight`` (O, C/groups, kh, kw), which is channels_last, and ``bias``. ``input``
    (N, C, H, W) of any strides is converted to channels_last, and the result (N, O, Ho, Wo) is channels_last.
    ``residual`` is added as torch's ``+=`` does: it may broadcast, and the result keeps the convolution's dtype. With
    ``overwrite`` the result may overwrite it.

    It has the attributes of a ``torch.nn.Conv2d`` and is none: what replaces or rebuilds a network's convolutions would
    lose the ReLU.

    Under torch.compile, torch.export, tracing and TorchScript, in function and dispatch modes and where a gradient is
    needed it runs torch's own operators.
    """

    if TYPE_CHECKING:  # TorchScript cannot resolve names in these
        weight: Tensor
        bias: Tensor | None
        relu: bool  #: whether a ReLU ends it
        packed: Packed
        in_channels: int
        out_channels: int
        kernel_size: tuple[int, int]
        stride: tuple[int, int]
        padding: Any
        dilation: tuple[int, int]
        groups: int
        padding_mode: str

    # TorchScript compiles what this layer is; a block asks for the second one, which other layers do not have.
    adds_residual = True
    __constants__ = [*nn.Conv2d.__constants__, "relu", "adds_residual"]
    __annotations__ = {"bias": Optional[Tensor]}  # as torch's convolutions tell TorchScript  # noqa: UP045
    _conv_forward: Any = nn.Conv2d._conv_forward

    @classmethod
    def take_over(cls, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, relu: bool) -> None:
        """Converts ``conv`` in place to this class, so that existing references to it stay valid."""
        conv._parameters["weight"] = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), False)
        conv._parameters["bias"] = None if bias is None else nn.Parameter(bias, False)
        conv.relu, conv.packed = relu, Packed()  # type: ignore[assignment]
        conv.__class__ = cls  # type: ignore[assignment]

    def forward(self, input: Tensor, residual: Tensor | None = None, overwrite: bool = False) -> Tensor:
        if torch.jit.is_scripting():
            return self.functional(input, residual)
        # is_grad_enabled: looking up two parameters takes longer than all else here
        if recorded(input) or (torch.is_grad_enabled() and needs_gradient(input, residual, self.weight, self.bias)):
            return self.functional(input, residual)
        if input.dim() == 4:
            input = input.contiguous(memory_format=torch.channels_last)
        return strategy_for(self, input, residual)(self, input, residual, overwrite)

    def functional(self, input: Tensor, residual: Tensor | None = None, relu: bool = True) -> Tensor:
        """The same by torch's operators, nothing in place; with the ReLU only if ``relu``."""
        out = self._conv_forward(input, self.weight, self.bias)
        if residual is not None:
            if torch.jit.is_scripting():
                out = out + residual
            else:
                out = added(out, residual)
        return F.relu(out) if relu and self.relu else out

    def is_plain(self) -> bool:
        """Whether the geometry is pairs of numbers and the padding zeros, which the fused operators need.

        torch's convolution also takes one number for both directions, which other code may have set.
        """
        zeros = self.padding_mode == "zeros"
        return zeros and _is_pair(self.stride) and _is_pair(self.padding) and _is_pair(self.dilation)

    def _apply(self, fn, recurse=True):
        self.packed.clear()  # of another device or dtype
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        self.packed.clear()  # tensors of inference mode do not tell that they were written to

    def extra_repr(self) -> str:
        return f"{nn.Conv2d.extra_repr(self)}, relu={self.relu}"  # type: ignore[arg-type]


def _is_pair(value: Any) -> bool:
    return type(value) in (tuple, list) and len(value) == 2


def added(out: Tensor, residual: Tensor) -> Tensor:
    """What ``out += residual`` makes of ``out``, which stays as it is: its shape and dtype are kept."""
    total = out + residual
    if isinstance(total, Proxy):
        return total
    # Under torch.jit.trace a comparison of shapes would warn.
    if not torch.jit.is_tracing() and total.shape != out.shape:
        shapes = f"{list(out.shape)} doesn't match the broadcast shape {list(total.shape)}"
        raise RuntimeError(f"output with shape {shapes}")  # torch's own words
    return total if total.dtype == out.dtype else total.to(out.dtype)


def recorded(input: Tensor) -> bool:
    """Whether this call is traced, transformed, under a function or dispatch mode, or calls a patched function.

    torch's own operators run then, and where ``input`` is no tensor: a proxy of torch.fx, or a mistake that they name.
    """
    return not isinstance(input, Tensor) or not nobody_records()
