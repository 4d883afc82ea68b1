"""Bugs to plant in the CUDA sources, one at a time, and what must then be reported.

``old`` must occur exactly once in ``file``. Whoever rewrites a kernel adapts its bugs: test_planted_bugs.py says which
no longer apply.

Of the bugs of the sm_90a kernels, which are off by default, every third one is planted, all of them with
``RESNET_CUDA_TEST_ALL_BUGS=1``: each takes most of a minute.
"""

from __future__ import annotations

import os

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

__all__ = ["ALL_BUGS", "BUGS", "PlantedBug"]

_EVERY = 1 if os.environ.get("RESNET_CUDA_TEST_ALL_BUGS") == "1" else 3
_OFTEN = (
    *deform_conv.BUGS,
    *frozen_bn.BUGS,
    *input_lists.BUGS,
    *tap_blocks.BUGS,
    *tap_order.BUGS,
    *transpose.BUGS,
)
_SM90A = (*column_gradient.BUGS, *fused_forward.BUGS, *fused_weight_gradient.BUGS, *warpgroup.BUGS)
ALL_BUGS = (*_OFTEN, *_SM90A)
BUGS = (*_OFTEN, *_SM90A[::_EVERY])
