"""Converts a batch norm's statistics to another epsilon."""

from __future__ import annotations

import torch
from torch import Tensor


def with_eps(
    weight: Tensor, variance: Tensor, source: float, target: float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Weight and variance, (C,), that give with epsilon ``target`` the same result as the arguments with ``source``.

    The variance becomes ``variance + source - target`` where that is accurate enough in float32; elsewhere it stays,
    and the weight is multiplied by the ratio of the standard deviations. A constant channel, of variance and epsilon 0,
    stays constant by a weight of 0.

    Args:
        dtype: of the returned variance; None for the argument's.

    Returns:
        Two tensors; the arguments themselves if the epsilons are equal.
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
    """Scale and shift, (C,), in weight's dtype, rounded once."""
    deviation = variance.double() + eps
    scale = torch.where(deviation == 0, torch.zeros_like(deviation), weight.double() * deviation.rsqrt())
    return scale.to(weight.dtype), (bias.double() - mean.double() * scale).to(bias.dtype)
