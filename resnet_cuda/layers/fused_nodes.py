"""FrozenBN with residual sum and ReLU as one node of a torch.fx graph, named after its result.

torchvision's network has the nodes ``bn1``, ``add`` and ``relu``; here one pass computes them. Its node is called
``relu`` and belongs to the block, so that ``layer1.0.relu`` and ``layer4.2.relu_2`` are the same tensors as in
torchvision's graph. The results of ``bn1`` and ``add`` do not exist; extracting them is an error.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from resnet_cuda.ops._registration import record
from resnet_cuda.ops.frozen_bn import frozen_batch_norm


def relu(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    residual: Tensor | None = None,
) -> Tensor:
    """``relu(frozen_batch_norm(input) + residual)`` as a graph node; arguments as for ``frozen_batch_norm``."""
    return frozen_batch_norm(input, weight, bias, running_mean, running_var, eps, residual, relu=True)


def add(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
    residual: Tensor,
) -> Tensor:
    """``frozen_batch_norm(input) + residual`` as a graph node."""
    return frozen_batch_norm(input, weight, bias, running_mean, running_var, eps, residual)


def record_norm(norm: Any, input: Any, residual: Any, with_relu: bool) -> Any:
    """The node of a FrozenBatchNorm2d ``norm`` of the proxy ``input``; without sum and ReLU, a call of the module."""
    if residual is None and not with_relu:
        return norm(input)
    constants = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    return record(relu if with_relu else add, input, *constants, residual)
