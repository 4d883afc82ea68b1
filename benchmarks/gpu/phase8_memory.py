"""Phase 8: peak memory beyond arguments and results, activation memory, and three headline times once more."""

from __future__ import annotations

import torch

from benchmarks.gpu import models, names
from benchmarks.gpu.context import Context, first_line
from benchmarks.gpu.layers import layer, make_sets
from benchmarks.gpu.phase1_ceilings import copy
from benchmarks.gpu.phase6_frozen_bn import measure
from benchmarks.gpu.records import best_known, latest, read
from benchmarks.gpu.side_by_side import compare
from benchmarks.gpu.variants import VARIANTS, candidate
from benchmarks.measure import peak_megabytes

CANDIDATES = (names.OURS_AUTOCAST, names.OURS_BFLOAT16, names.TORCHVISION_AUTOCAST)
HEADLINE = {"op": names.DEFORM_CONV, "stage": "C4", "batch": 8, "candidate": names.OURS_BFLOAT16}


def _extra_memory(context: Context, stage: str, direction: str, name: str) -> None:
    """What one call holds at its highest beyond what it was given and what it gives."""
    sets = make_sets(layer(stage, 8, context.quick), context.device, 1)
    try:
        made = candidate(VARIANTS[name], sets, direction)
        with made.setting():
            results = made.calls[0]()  # warm-up: cuBLAS keeps a workspace from its first call on
            given = sum(result.nbytes for result in results) / 1e6
            del results
            peak = peak_megabytes(made.calls[0], context.device)
    except (ImportError, RuntimeError) as error:
        context.not_measured(f"memory, {stage}, {direction}, {name}", first_line(error))
        return
    extra = None if peak is None else round(peak - given, 2)
    facts = {"op": names.DEFORM_CONV, "stage": stage, "batch": 8, "direction": direction, "candidate": name}
    context.write("memory", **facts, extra_megabytes=extra, result_megabytes=round(given, 2))


def _activation_memory(context: Context) -> None:
    """What a forward of the body keeps for its backward, per image, with the four outputs in it."""
    if context.device.type != "cuda":
        context.not_measured("activation memory", "only the CUDA allocator counts it")
        return
    batch = 2
    image = torch.randn(batch, 3, 800, 1344, device=context.device).contiguous(memory_format=torch.channels_last)
    own = models.ours(names.PLAIN, image[:1])
    ways = {names.OURS_AUTOCAST: own}
    try:
        ways[names.EAGER_AUTOCAST] = models.torchvisions(names.PLAIN, own)
    except ImportError as error:
        context.not_measured(f"activation memory, {names.EAGER_AUTOCAST}", str(error))
    for name, model in ways.items():
        model.train()
        for repeat in range(2):  # the first one makes constants and workspaces
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            with torch.autocast("cuda", torch.bfloat16):
                outputs = model.body(image)
            kept = torch.cuda.memory_allocated() - before
            del outputs
            if repeat == 1:
                per_image = round(kept / batch / 1e6, 1)
                context.write("memory", op=names.BACKBONE, candidate=name, kept_megabytes_per_image=per_image)


def _repeat(context: Context) -> None:
    """The spread: the same three rows as in phases 4 and 6, minutes later."""
    records = read(context.results.path)
    again: dict[str, tuple[dict | None, dict | None]] = {}
    for direction in (names.FORWARD, names.BACKWARD):
        facts = HEADLINE | {"direction": direction, "kind": "time", "phase": "4", "offset_pixels": 2.0}
        lines = compare(context, layer("C4", 8, context.quick), direction, (names.OURS_BFLOAT16,))
        again[f"deform_conv2d {direction}"] = latest(records, **facts), lines.get(names.OURS_BFLOAT16)
    bandwidth = copy(context, 2 if context.quick else 4000)["gigabytes_per_second"]
    place = {"activation": "C4, batch 8", "layout": "channels_last", "variant": "in place with residual"}
    lines = measure(context, *place.values(), bandwidth)
    first = latest(records, kind="time", phase="6", op=names.FROZEN_BN, candidate="resnet_cuda", **place)
    again["frozen_bn_relu"] = first, lines.get("resnet_cuda")
    for item, (first, second) in again.items():
        if first is None or second is None:
            context.not_measured(f"spread of {item}", "it was not measured before" if first is None else "it failed")
            continue
        pair = [best_known(first), best_known(second)]
        context.write("spread", item=item, us=pair, spread=round(abs(pair[0] - pair[1]) / min(pair), 4))


def run(context: Context) -> None:
    context.needs_native()
    for stage in ("C3", "C4", "C5"):
        for direction in (names.FORWARD, names.BACKWARD):
            for name in CANDIDATES:
                if context.enough_time(f"memory, {stage}, {direction}, {name}"):
                    _extra_memory(context, stage, direction, name)
    if context.enough_time("spread"):
        _repeat(context)
    if context.enough_time("activation memory"):
        _activation_memory(context)
    context.check()
