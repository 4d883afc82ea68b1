"""The keys that the backbone reads, with maskrcnn-benchmark's defaults, and an additional one: STEM_IN_CHANNELS."""

from __future__ import annotations

from typing import Any

# An unknown key in one of these sections is an error, except in SHARED_SECTIONS, whose other keys belong to a detector.
# Sections that are not listed (SOLVER, MODEL.RPN) are kept unchecked.
DEFAULTS: dict[str, dict[str, Any]] = {
    "BACKBONE": {"CONV_BODY": "R-50-C4", "FREEZE_CONV_BODY_AT": 2},
    "RESNETS": {
        "NUM_GROUPS": 1,
        "WIDTH_PER_GROUP": 64,
        "STRIDE_IN_1X1": True,
        "TRANS_FUNC": "BottleneckWithFixedBatchNorm",
        "STEM_FUNC": "StemWithFixedBatchNorm",
        "RES5_DILATION": 1,
        "BACKBONE_OUT_CHANNELS": 256 * 4,
        "RES2_OUT_CHANNELS": 256,
        "STEM_IN_CHANNELS": 3,
        "STEM_OUT_CHANNELS": 64,
        "STAGE_WITH_DCN": (False, False, False, False),
        "WITH_MODULATED_DCN": False,
        "DEFORMABLE_GROUPS": 1,
    },
    "FPN": {"USE_GN": False, "USE_RELU": False},
    "GROUP_NORM": {"DIM_PER_GP": -1, "NUM_GROUPS": 32, "EPSILON": 1e-5},
    "RETINANET": {"USE_C5": True},
}
SHARED_SECTIONS = ("RETINANET",)
