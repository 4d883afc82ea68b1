"""detectron2's names in the sections that the backbone reads, and what says the same in ours."""

from __future__ import annotations

_BODY = 'MODEL.BACKBONE.CONV_BODY, "R-50-FPN", say'

# By section, as in config_defaults; a key that both libraries have (NUM_GROUPS, STRIDE_IN_1X1) is not here.
_DETECTRON2: dict[str, dict[str, str]] = {
    "MODEL.BACKBONE": {"NAME": _BODY, "FREEZE_AT": "MODEL.BACKBONE.FREEZE_CONV_BODY_AT"},
    "MODEL.RESNETS": {
        "DEPTH": _BODY,
        "OUT_FEATURES": _BODY,
        "NORM": "MODEL.RESNETS.TRANS_FUNC and STEM_FUNC",
        "DEFORM_ON_PER_STAGE": "MODEL.RESNETS.STAGE_WITH_DCN",
        "DEFORM_MODULATED": "MODEL.RESNETS.WITH_MODULATED_DCN",
        "DEFORM_NUM_GROUPS": "MODEL.RESNETS.DEFORMABLE_GROUPS",
    },
    "MODEL.FPN": {
        "IN_FEATURES": _BODY,
        "OUT_CHANNELS": "MODEL.RESNETS.BACKBONE_OUT_CHANNELS",
        "NORM": "MODEL.FPN.USE_GN",
        "FUSE_TYPE": 'nothing, it is always "sum"',
    },
}


def detectron2_hint(section: str, key: object) -> str:
    """The end of an error about the unknown ``key`` of ``section``: what to write instead, or nothing."""
    here = _DETECTRON2.get(section, {}).get(key) if isinstance(key, str) else None
    if here is None:
        return ""
    return (
        f". It is detectron2's; here it is {here}. Files of detectron2 are read as they are by "
        "resnet_cuda.integrations.detectron2, within detectron2"
    )
