"""Which stages a body has [maskrcnn_benchmark.modeling.backbone.resnet]."""

from __future__ import annotations

from typing import NamedTuple

from resnet_cuda.registry import Registry


class StageSpec(NamedTuple):
    """One stage: its index (1 is C2), its number of blocks, whether its output is returned."""

    index: int
    block_count: int
    return_features: bool


def _stages(block_counts: tuple[int, ...], returned: tuple[int, ...]) -> tuple[StageSpec, ...]:
    return tuple(StageSpec(index, count, index in returned) for index, count in enumerate(block_counts, 1))


ResNet50StagesTo5 = _stages((3, 4, 6, 3), (4,))
ResNet50StagesTo4 = _stages((3, 4, 6), (3,))
ResNet101StagesTo5 = _stages((3, 4, 23, 3), (4,))
ResNet101StagesTo4 = _stages((3, 4, 23), (3,))
ResNet50FPNStagesTo5 = _stages((3, 4, 6, 3), (1, 2, 3, 4))
ResNet101FPNStagesTo5 = _stages((3, 4, 23, 3), (1, 2, 3, 4))
ResNet152FPNStagesTo5 = _stages((3, 8, 36, 3), (1, 2, 3, 4))


class _StageSpecs(Registry):
    """Knows why the one body of maskrcnn-benchmark's files that is no ResNet is missing."""

    def __missing__(self, name: object):
        if name == "FBNet":
            allowed = ", ".join(sorted(self))
            raise KeyError(f"{self.kind} 'FBNet' is not a ResNet and no part of resnet_cuda; allowed are {allowed}")
        return super().__missing__(name)


_STAGE_SPECS = _StageSpecs(
    "MODEL.BACKBONE.CONV_BODY",
    {
        "R-50-C4": ResNet50StagesTo4,
        "R-50-C5": ResNet50StagesTo5,
        "R-101-C4": ResNet101StagesTo4,
        "R-101-C5": ResNet101StagesTo5,
        "R-50-FPN": ResNet50FPNStagesTo5,
        "R-50-FPN-RETINANET": ResNet50FPNStagesTo5,
        "R-101-FPN": ResNet101FPNStagesTo5,
        "R-101-FPN-RETINANET": ResNet101FPNStagesTo5,
        "R-152-FPN": ResNet152FPNStagesTo5,
    },
)
