"""The keys that the backbone reads, at maskrcnn-benchmark's defaults."""

from __future__ import annotations

from typing import Any

# A section that is listed here is ours: an unknown key in it is an error. Keys of other sections (SOLVER, MODEL.RPN)
# and those of MODEL.RETINANET besides USE_C5 are for parts of a detector that are not here, and are kept as they come.
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
