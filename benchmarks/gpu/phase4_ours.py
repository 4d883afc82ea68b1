"""Phase 4: our deform_conv2d beside the peers that its users would come from, in the same process on the same values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.gpu import layers, names
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.layers import layer
from benchmarks.gpu.side_by_side import compare

AUTOCAST = (
    names.OURS_AUTOCAST,
    names.TORCHVISION_AUTOCAST,
    names.TORCHVISION_AUTOCAST_TF32,
    names.OURS_BFLOAT16,
)
OTHERS = (
    (names.OURS_TF32, names.TORCHVISION_TF32),
    (names.OURS_FLOAT32, names.TORCHVISION_FLOAT32),
)
DIRECTIONS = (names.FORWARD, names.BACKWARD)
CELLS = (("C4", 8), ("C3", 8), ("C5", 8), ("C4", 1), ("C3", 1), ("C5", 1))  # the important ones first


def _compare_all(context: Context, cells: Iterable[tuple[str, int]], wanted: Sequence[str], **options: object) -> None:
    for stage, batch in cells:
        one = layer(stage, batch, context.quick)
        for direction in DIRECTIONS:
            shown = ", ".join(str(value) for value in (wanted[0], one, direction, *options.values()))
            if context.enough_time(shown):
                compare(context, one, direction, wanted, **options)


def _between_clocks(measure: Callable[[Context], None]) -> Callable[[Context], None]:
    """The clock rates before and behind, and an error at the end where something was wrong."""

    def run(context: Context) -> None:
        context.needs_native()
        context.write("clocks", **read_clocks(context.device))
        measure(context)
        context.write("clocks", **read_clocks(context.device))
        context.check()

    return run


@_between_clocks
def alone(context: Context) -> None:
    """The headlines without any peer: little time, so they are there whatever happens later."""
    _compare_all(context, CELLS, (names.OURS_BFLOAT16, names.OURS_AUTOCAST))


@_between_clocks
def beside_peers(context: Context) -> None:
    """How many times as long as ours torchvision takes."""
    _compare_all(context, CELLS[:1], AUTOCAST)
    for wanted in OTHERS:
        _compare_all(context, CELLS[:1], wanted)
    _compare_all(context, CELLS[1:], AUTOCAST)


@_between_clocks
def variants(context: Context) -> None:
    """Other dtypes, batches and offsets; 2 pixels are the headline itself."""
    _compare_all(context, CELLS[:1], (names.OURS_BFLOAT16,))
    for offset_pixels in (0.0, 8.0, layers.UNIFORM):
        _compare_all(context, CELLS[:1], (names.OURS_BFLOAT16,), offset_pixels=offset_pixels)
    _compare_all(context, [(stage, 2) for stage in ("C4", "C3", "C5")], (names.OURS_BFLOAT16, names.OURS_TF32))
    _compare_all(context, CELLS[:1], (names.OURS_FLOAT16, names.MMCV_FLOAT16))
    _compare_all(context, CELLS[1:3], (names.OURS_TF32, names.TORCHVISION_TF32))
