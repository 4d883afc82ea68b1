"""FrozenBatchNorm + residual + ReLU in pure PyTorch: the operators' definition, rounding included.

Computed in float64 for a float64 input, else in float32: multiply, add the shift, add the residual, clamp; then one
rounding to the input's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_cuda._arguments import flag
from resnet_cuda.reference.checks import (
    check_frozen_batch_norm,
    check_frozen_bn_relu,
    check_tensor,
    compute_dtype,
    output_memory_format,
)


def frozen_bn_relu(
    input: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    relu: bool = True,
    inplace: bool = False,
) -> Tensor:
    """:func:`resnet_cuda.ops.frozen_bn_relu` in pure PyTorch: same arguments, results and errors."""
    op = "frozen_bn_relu"
    relu, inplace = flag(op, "relu", relu), flag(op, "inplace", inplace)
    for name, value in (("input", input), ("scale", scale), ("shift", shift)):
        check_tensor(op, name, value)
    check_tensor(op, "residual", residual, optional=True)
    check_frozen_bn_relu(input, scale, shift, residual)
    compute = compute_dtype(input)
    return _apply(input, scale.to(compute), shift.to(compute), residual, relu, inplace)


def frozen_batch_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    residual: Tensor | None = None,
    relu: bool = False,
    inplace: bool = False,
) -> Tensor:
    """:func:`resnet_cuda.ops.frozen_bn.frozen_batch_norm` in pure PyTorch: same arguments, results and errors."""
    op = "frozen_batch_norm"
    relu, inplace = flag(op, "relu", relu), flag(op, "inplace", inplace)
    buffers = (weight, bias, running_mean, running_var)
    check_tensor(op, "input", input)
    for name, value in zip(("weight", "bias", "running_mean", "running_var"), buffers, strict=True):
        check_tensor(op, name, value)
    check_tensor(op, "residual", residual, optional=True)
    check_frozen_batch_norm(input, weight, bias, running_mean, running_var, residual)
    scale, shift = scale_and_shift(*buffers, eps, compute_dtype(input))
    return _apply(input, scale, shift, residual, relu, inplace)


def scale_and_shift(
    weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """``weight / sqrt(running_var + eps)`` and ``bias - running_mean * scale``, each (C,), computed in ``dtype``.

    A channel whose variance plus eps is 0 gets scale 0, so that its result is the bias and not 0/0.
    """
    weight, bias, mean, variance = (it.to(dtype) for it in (weight, bias, running_mean, running_var))
    variance = variance + eps
    scale = torch.where(variance == 0, torch.zeros_like(variance), weight * variance.rsqrt())
    return scale, bias - mean * scale


def _apply(input: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, relu: bool, inplace: bool) -> Tensor:
    compute = scale.dtype
    output = input.to(compute) * scale[:, None, None] + shift[:, None, None]
    if residual is not None:
        output = output + residual.to(compute)
    if relu:
        output = output.relu()
    output = output.to(input.dtype)
    if inplace:
        # Autograd records the copy, as any other in-place operation.
        return input.copy_(output)
    return output.contiguous(memory_format=output_memory_format(input))
