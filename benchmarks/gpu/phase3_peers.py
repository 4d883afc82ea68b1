"""Phase 3: the peers by themselves, in the precisions that people use them in."""

from __future__ import annotations

from benchmarks.gpu import names
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.layers import layer
from benchmarks.gpu.phase4_ours import CELLS
from benchmarks.gpu.side_by_side import compare

PEERS = (
    names.TORCHVISION_FLOAT32,
    names.TORCHVISION_TF32,
    names.TORCHVISION_AUTOCAST,
    names.TORCHVISION_AUTOCAST_TF32,
    names.MMCV_FLOAT32,
    names.MMCV_FLOAT16,
)


def run(context: Context) -> None:
    context.write("clocks", **read_clocks(context.device))
    for stage, batch in CELLS:
        one = layer(stage, batch, context.quick)
        for direction in (names.FORWARD, names.BACKWARD):
            if context.enough_time(f"peers, {one}, {direction}"):
                compare(context, one, direction, PEERS, cached=direction == names.FORWARD)
    context.write("clocks", **read_clocks(context.device))
    context.check()
