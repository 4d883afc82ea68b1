"""FrozenBatchNorm + residual + ReLU in pure PyTorch: the operator's definition, where it rounds included.

float64 input is computed in float64, every other in float32: multiply, add the shift, add the residual, clamp; then one
rounding to the input's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_cuda.reference.checks import check_frozen_bn_relu, check_tensor, output_memory_format


def frozen_bn_relu(
    input: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None = None,
    relu: bool = True,
    inplace: bool = False,
) -> Tensor:
    """:func:`resnet_cuda.ops.frozen_bn_relu` in pure PyTorch: same arguments, results and errors."""
    for name, value in (("input", input), ("scale", scale), ("shift", shift)):
        check_tensor("frozen_bn_relu", name, value)
    check_tensor("frozen_bn_relu", "residual", residual, optional=True)
    check_frozen_bn_relu(input, scale, shift, residual)
    compute = torch.float64 if input.dtype == torch.float64 else torch.float32
    # Constants by definition: no gradient goes to them even where a caller's tensors ask for one.
    scale, shift = scale.detach().to(compute), shift.detach().to(compute)
    output = input.to(compute) * scale[:, None, None] + shift[:, None, None]
    if residual is not None:
        output = output + residual.to(compute)
    if relu:
        output = output.relu()
    output = output.to(input.dtype)
    if inplace:
        # The copy is recorded by autograd, so the graph behind `input` goes on as for any other in-place operation.
        return input.copy_(output)
    return output.contiguous(memory_format=output_memory_format(input))
