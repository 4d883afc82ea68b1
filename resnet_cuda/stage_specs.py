"""The stages of each body [maskrcnn_benchmark.modeling.backbone.resnet]; a new depth is a line in ``BLOCK_COUNTS``."""

from __future__ import annotations

from typing import NamedTuple

from resnet_cuda.registry import Registry

# Bottlenecks of C2 to C5 by depth (He et al. 2015, table 1). Every route builds the depths that stand here: CONV_BODY
# "R-<depth>-<kind>" with each kind of RETURNED_STAGES, and resnet_fpn_backbone("resnet<depth>").
BLOCK_COUNTS: dict[int, tuple[int, int, int, int]] = {
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

# The depths of torchvision's, detectron2's and mmdetection's ResNets: the first two are of basic blocks.
ALL_BLOCK_COUNTS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), **BLOCK_COUNTS}

# The stages whose outputs a kind of body returns, 1 for C2; it has no stages after the last of them.
RETURNED_STAGES: dict[str, tuple[int, ...]] = {
    "C4": (3,),
    "C5": (4,),
    "DC5": (4,),
    "FPN": (1, 2, 3, 4),
    "FPN-RETINANET": (1, 2, 3, 4),
}

# The stages of a kind that keep the size of their input and dilate all of their 3x3 convolutions instead, and by how
# much. No kind of maskrcnn-benchmark's is here: its RES5_DILATION is for the RoI head and does not change a body.
DILATED_STAGES: dict[str, dict[int, int]] = {"DC5": {4: 2}}


class StageSpec(NamedTuple):
    """One stage: its index (1 is C2), its number of blocks, whether its output is returned."""

    index: int
    block_count: int
    return_features: bool


class DilatedStageSpec(NamedTuple):
    """A :class:`StageSpec` with dilation: all 3x3 convolutions of the stage are dilated and it keeps the size of its
    input, as detectron2's res5 with RES5_DILATION. A dilation of 1 is a plain stage."""

    index: int
    block_count: int
    return_features: bool
    dilation: int


def _stages(depth: int, kind: str) -> tuple[StageSpec | DilatedStageSpec, ...]:
    returned, dilations = RETURNED_STAGES[kind], DILATED_STAGES.get(kind, {})
    counts = BLOCK_COUNTS[depth][: max(returned)]
    specs = (StageSpec(index, count, index in returned) for index, count in enumerate(counts, 1))
    return tuple(DilatedStageSpec(*it, dilations[it.index]) if it.index in dilations else it for it in specs)


ResNet50StagesTo5 = _stages(50, "C5")
ResNet50StagesTo4 = _stages(50, "C4")
ResNet101StagesTo5 = _stages(101, "C5")
ResNet101StagesTo4 = _stages(101, "C4")
ResNet50FPNStagesTo5 = _stages(50, "FPN")
ResNet101FPNStagesTo5 = _stages(101, "FPN")
ResNet152FPNStagesTo5 = _stages(152, "FPN")


class _StageSpecs(Registry):
    """Says why FBNet, the one body of maskrcnn-benchmark's files that is not a ResNet, is missing."""

    def __missing__(self, name: object):
        if name == "FBNet":
            allowed = ", ".join(sorted(self))
            raise KeyError(f"{self.kind} 'FBNet' is not a ResNet and no part of resnet_cuda; allowed are {allowed}")
        return super().__missing__(name)


_STAGE_SPECS = _StageSpecs(
    "MODEL.BACKBONE.CONV_BODY",
    {f"R-{depth}-{kind}": _stages(depth, kind) for depth in BLOCK_COUNTS for kind in RETURNED_STAGES},
)
