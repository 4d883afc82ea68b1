"""Phase 4: our deform_conv2d beside the peers that its users would come from, in the same process on the same values."""

from __future__ import annotations

from benchmarks.gpu import layers, names
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.layers import layer
from benchmarks.gpu.phase3_peers import ORDER
from benchmarks.gpu.side_by_side import compare

AUTOCAST = (
    names.OURS_AUTOCAST,
    names.TORCHVISION_AUTOCAST,
    names.TORCHVISION_AUTOCAST_TF32,
    names.OURS_BFLOAT16,
)
OTHERS = (
    (names.OURS_FLOAT16, names.MMCV_FLOAT16),
    (names.OURS_TF32, names.TORCHVISION_TF32),
    (names.OURS_FLOAT32, names.TORCHVISION_FLOAT32),
)
DIRECTIONS = (names.FORWARD, names.BACKWARD)


def run(context: Context) -> None:
    context.needs_native()
    context.write("clocks", **read_clocks(context.device))
    headline = layer("C4", 8, context.quick)
    for direction in DIRECTIONS:
        for wanted in (AUTOCAST, *OTHERS):
            if context.enough_time(f"{wanted[0]}, {headline}, {direction}"):
                compare(context, headline, direction, wanted)
    for stage, batch in ORDER[1:]:
        one = layer(stage, batch, context.quick)
        for direction in DIRECTIONS:
            if context.enough_time(f"{AUTOCAST[0]}, {one}, {direction}"):
                compare(context, one, direction, AUTOCAST)
    for stage in ("C4", "C3", "C5"):
        one = layer(stage, 2, context.quick)
        for direction in DIRECTIONS:
            if context.enough_time(f"{one}, {direction}"):
                compare(context, one, direction, (names.OURS_BFLOAT16, names.OURS_TF32))
    for offset_pixels in (0.0, 8.0, layers.UNIFORM):  # 2 is the headline itself
        for direction in DIRECTIONS:
            if context.enough_time(f"{headline}, {direction}, offsets {offset_pixels}"):
                compare(context, headline, direction, (names.OURS_BFLOAT16,), offset_pixels)
    context.write("clocks", **read_clocks(context.device))
    context.check()
