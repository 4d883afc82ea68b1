"""The emulated operators with gradients: what resnet_cuda.ops is to the compiled ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class _DeformConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx, emulated, input, weight, offset, mask, bias, *geometry):
        ctx.emulated, ctx.geometry = emulated, geometry
        ctx.save_for_backward(input, weight, offset, mask)
        return emulated.deform_conv2d(input, weight, offset, mask, bias, *geometry)

    @staticmethod
    def backward(ctx, grad):
        needs = ctx.needs_input_grad[1:6]  # input, weight, offset, mask, bias
        gradients = ctx.emulated.deform_conv2d_backward(grad, *ctx.saved_tensors, *ctx.geometry, *needs)
        asked = (gradient if needed else None for gradient, needed in zip(gradients, needs, strict=True))
        return None, *asked, *(None for _ in ctx.geometry)


def deform_conv2d_of(emulated) -> Callable[..., Tensor]:
    """``resnet_cuda.ops.deform_conv2d`` by the emulated kernels."""

    def deform_conv2d(input, offset, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), mask=None):
        geometry = (*stride, *padding, *dilation)
        return _DeformConv2d.apply(emulated, input, weight, offset, mask, bias, *geometry)

    return deform_conv2d
