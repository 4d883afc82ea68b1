"""Bugs to plant in the CUDA sources, one at a time, and what must then be reported.

``old`` must occur exactly once in ``file``. Whoever rewrites a kernel adapts its bugs: test_planted_bugs.py says which
no longer apply.
"""

from __future__ import annotations

from emulation.planted_bugs import (
    column_gradient,
    deform_conv,
    frozen_bn,
    fused_forward,
    fused_weight_gradient,
    input_lists,
    tap_blocks,
    tap_order,
    transpose,
    warpgroup,
)
from emulation.planted_bugs.bug import PlantedBug

__all__ = ["BUGS", "PlantedBug"]

BUGS = (
    *column_gradient.BUGS,
    *deform_conv.BUGS,
    *frozen_bn.BUGS,
    *fused_forward.BUGS,
    *fused_weight_gradient.BUGS,
    *input_lists.BUGS,
    *tap_blocks.BUGS,
    *tap_order.BUGS,
    *transpose.BUGS,
    *warpgroup.BUGS,
)
