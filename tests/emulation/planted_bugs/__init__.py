"""Bugs to plant in the CUDA sources, one at a time, and what must then be reported.

``old`` must occur exactly once in ``file``. Whoever rewrites a kernel adapts its bugs: test_planted_bugs.py says which
no longer apply.

Of each file's bugs the first one is planted, all of them with ``RESNET_CUDA_TEST_ALL_BUGS=1``: each takes up to a
minute. Run them all after a change to a kernel, or to what tests it.
"""

from __future__ import annotations

import os

from emulation.planted_bugs import (
    column_gradient,
    deform_conv,
    frozen_bn,
    fused_forward,
    fused_uniform,
    fused_weight_gradient,
    fused_weight_uniform,
    input_lists,
    tap_blocks,
    tap_order,
    transpose,
    warpgroup,
)
from emulation.planted_bugs.bug import PlantedBug

__all__ = ["ALL_ASKED_FOR", "ALL_BUGS", "BUGS", "PlantedBug"]

ALL_BUGS = (
    *column_gradient.BUGS,
    *deform_conv.BUGS,
    *frozen_bn.BUGS,
    *fused_forward.BUGS,
    *fused_uniform.BUGS,
    *fused_weight_gradient.BUGS,
    *fused_weight_uniform.BUGS,
    *input_lists.BUGS,
    *tap_blocks.BUGS,
    *tap_order.BUGS,
    *transpose.BUGS,
    *warpgroup.BUGS,
)

ALL_ASKED_FOR = os.environ.get("RESNET_CUDA_TEST_ALL_BUGS") == "1"
_FIRST: dict[str, PlantedBug] = {}  # of each file
for _bug in ALL_BUGS:
    _FIRST.setdefault(_bug.file, _bug)
BUGS = ALL_BUGS if ALL_ASKED_FOR else tuple(_FIRST.values())
