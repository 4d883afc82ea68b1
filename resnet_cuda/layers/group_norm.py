"""Group normalisation as maskrcnn-benchmark makes it (Wu & He 2018, arXiv:1803.08494)."""

from __future__ import annotations

from torch import nn


def group_norm(
    out_channels: int,
    affine: bool = True,
    divisor: int = 1,
    *,
    num_groups: int = 32,
    dim_per_group: int = -1,
    eps: float = 1e-5,
) -> nn.GroupNorm:
    """A GroupNorm over ``out_channels // divisor`` channels [maskrcnn_benchmark.modeling.make_layers.group_norm].

    Args:
        out_channels: channels of the input, times ``divisor``.
        affine: whether the norm has a weight and a bias.
        divisor: divides channels, groups and ``dim_per_group``.
        num_groups: groups (``MODEL.GROUP_NORM.NUM_GROUPS``), or -1 to go by ``dim_per_group``.
        dim_per_group: channels per group (``DIM_PER_GP``), or -1 to go by ``num_groups``.
        eps: added to the variance.

    Raises:
        ValueError: unless exactly one of ``num_groups`` and ``dim_per_group`` is positive and divides the channels.
    """
    channels = out_channels // divisor
    groups = num_groups // divisor if num_groups > 0 else -1
    per_group = dim_per_group // divisor if dim_per_group > 0 else -1
    if (groups > 0) == (per_group > 0):
        raise ValueError(
            f"group_norm: num_groups is {num_groups} and dim_per_group is {dim_per_group} (divisor {divisor}); "
            "exactly one of them must be positive"
        )
    size = groups if groups > 0 else per_group
    if channels % size:
        name = "num_groups" if groups > 0 else "dim_per_group"
        raise ValueError(f"group_norm: {name} is {size}; it must divide the {channels} channels")
    return nn.GroupNorm(groups if groups > 0 else channels // per_group, channels, eps, affine)
