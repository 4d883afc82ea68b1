"""Statistics of a batch norm for another epsilon."""

from __future__ import annotations

import torch
from torch import Tensor


def with_eps(
    weight: Tensor, variance: Tensor, source: float, target: float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Weight and variance, (C,), that give with epsilon ``target`` what the arguments give with ``source``.

    ``variance + source - target`` where a float32 of that is accurate enough; else the variance stays and the weight
    takes the quotient of the standard deviations. A channel that is constant, of variance and epsilon 0, stays so by a
    weight of 0.

    Args:
        dtype: of the returned variance; None for that of the argument.

    Returns:
        Tensors; the arguments where the epsilons are equal.
    """
    if source == target:
        return weight, variance
    exact = variance.double() + source
    shifted = exact - target
    narrow = shifted.float().double()
    kept = (narrow > 0) & (((narrow + target) / exact - 1).abs() < 2.0**-22)
    ratio = ((variance.double() + target) / exact).sqrt()
    ratio = torch.where(exact == 0, torch.zeros_like(ratio), ratio)
    scaled = (weight.double() * ratio).to(weight.dtype)
    result = torch.where(kept, shifted, variance.double()).to(dtype or variance.dtype)
    return torch.where(kept, weight, scaled), result


def folded(weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Scale and shift, (C,), of weight's dtype, rounded once."""
    deviation = variance.double() + eps
    scale = torch.where(deviation == 0, torch.zeros_like(deviation), weight.double() * deviation.rsqrt())
    return scale.to(weight.dtype), (bias.double() - mean.double() * scale).to(bias.dtype)
