"""frozen_bn_relu on the activations of a ResNet-50, as a share of the speed of plain copies."""

import functools

import torch

from benchmarks import bench_frozen_bn
from benchmarks.bench_frozen_bn import OURS, bytes_moved, prepare
from benchmarks.cases import FROZEN_BN
from benchmarks.gpu.ceilings import copy
from benchmarks.gpu.cells import Cell
from benchmarks.gpu.context import Context
from benchmarks.measure import Candidate, compare_blocks, relative_error, sets_needed
from benchmarks.records import microseconds

# Channels, height, width of what is written at 800x1344.
SIZES = {"stem": (64, 400, 672)} | {name.split()[0]: size[1:] for name, size in FROZEN_BN.items()}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
COPY = "copy of as many bytes"  # as ours moves: a small one cannot reach the bandwidth of copying gigabytes


def measure(context: Context, cell: Cell) -> None:
    """Result lines by candidate, on record; a failure where the results differ."""
    size = (min(cell.batch, 2), 8, 5, 7) if context.quick else (cell.batch, *SIZES[cell.where])
    moved = bytes_moved(size, cell.what, torch.bfloat16)
    sets = []
    for seed in range(sets_needed(moved, context.device)):
        sets.append(prepare(size, cell.what, torch.bfloat16, LAYOUTS[cell.layout], context.device, seed))
        source = torch.empty(moved // 4, dtype=torch.bfloat16, device=context.device).normal_()
        sets[-1][COPY] = functools.partial(torch.empty_like(source).copy_, source)
    made = [Candidate(name, [one[name] for one in sets]) for name in (OURS, "eager", COPY)]
    pairs = [one if isinstance(one, tuple) else (one,) for one in (sets[0][OURS](), sets[0]["eager"]())]
    error = max(relative_error(a, b) for a, b in zip(*pairs, strict=True))
    facts = {"activation": f"{cell.where}, batch {cell.batch}", "layout": cell.layout, "variant": cell.what}
    if error > bench_frozen_bn.TOLERANCE[torch.bfloat16]:
        reason = f"differs from the eager operations by {error:.3g}"
        context.not_measured(", ".join(facts.values()), reason)
        context.failures.append(f"{', '.join(facts.values())}: {reason}")
        return
    bandwidth = context.once("bandwidth", lambda: copy(context, "copy, before FrozenBN"))
    lines = compare_blocks(made, context.device, context.effort)
    for name, line in lines.items():
        us = microseconds(line)
        line |= {"share_of_copy": round(moved / us / 1e3 / bandwidth, 4), "size": size, "bytes": moved}
        line |= {"share_of_same_copy": round(microseconds(lines[COPY]) / us, 4), "error": float(f"{error:.3g}")}
        context.write("time", op=cell.op, **facts, candidate=name, **line)
