"""Phase 5: where a call spends its time, kernel by kernel: deform_conv2d at C4, batch 8, and R-50-FPN."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import models, names, phase7_backbones
from benchmarks.gpu.context import Context
from benchmarks.gpu.layers import layer, make_sets
from benchmarks.gpu.timing import synchronize
from benchmarks.gpu.variants import VARIANTS, gradients

REPEATS = 5
FACTS = {
    "registers per thread": "registers",
    "shared memory": "shared_bytes",
    "grid": "grid",
    "block": "block",
    "est. achieved occupancy %": "occupancy_percent",
}


def _events(trace: dict, category: str) -> list[dict]:
    return [event for event in trace["traceEvents"] if event.get("cat") == category and "dur" in event]


def operator(context: Context) -> Callable[[], object]:
    """Forward and backward at C4, batch 8."""
    variant = VARIANTS[names.OURS_BFLOAT16]
    sets = make_sets(layer("C4", 8, context.quick), context.device, 1)
    tensors = variant.cast(sets[0], differentiable=True)
    return lambda: gradients(variant, tensors)()


def inference(context: Context) -> Callable[[], object]:
    """R-50-FPN in bfloat16, batch 1: a replay of its CUDA graph, or the call itself where there is no GPU."""
    own = models.ours(names.PLAIN, phase7_backbones.make_image(context, 1)).bfloat16()
    way = phase7_backbones.Way(names.OURS_BFLOAT16, own, autocast=False)
    call = phase7_backbones.make_inference(way, phase7_backbones.make_image(context, 1))
    return phase7_backbones.graphed(call) if context.device.type == "cuda" else call


def training_step(context: Context) -> Callable[[], object]:
    """R-50-FPN under autocast, batch 8."""
    own = models.ours(names.PLAIN, phase7_backbones.make_image(context, 1))
    way = phase7_backbones.Way(names.OURS_AUTOCAST, own, autocast=True)
    return phase7_backbones.make_training_step(way, phase7_backbones.make_image(context, 1 if context.quick else 8))


ITEMS = {
    "deform_conv2d, C4, batch 8, bfloat16, forward and backward": (operator, 100),
    "R-50-FPN inference, batch 1, bfloat16, CUDA graph": (inference, 30),
    "R-50-FPN training step, batch 8, autocast bfloat16": (training_step, 30),
}


def measure(context: Context, item: str, call: Callable[[], object], most: int) -> None:
    """A record for each of the ``most`` kernels that take longest, and one for all of them."""
    for _ in range(2):
        call()
    on_gpu = context.device.type == "cuda"
    activities = [ProfilerActivity.CUDA, ProfilerActivity.CPU] if on_gpu else [ProfilerActivity.CPU]
    synchronize(context.device)
    with profile(activities=activities) as profiler:
        for _ in range(REPEATS):
            call()
        synchronize(context.device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())
    # Copies and fills are the GPU's work too. Without a GPU: the operators, the outer ones with the inner ones in them.
    categories = ("kernel", "gpu_memcpy", "gpu_memset") if on_gpu else ("cpu_op",)
    groups: dict[str, list[dict]] = defaultdict(list)
    for category in categories:
        for event in _events(trace, category):
            groups[event["name"]].append(event)
    if not groups:
        raise RuntimeError(f"the profiler has recorded nothing of {', '.join(categories)}")
    spent = {name: sum(event["dur"] for event in events) / REPEATS for name, events in groups.items()}
    total = sum(spent.values())
    for name in sorted(spent, key=spent.get, reverse=True)[:most]:
        arguments = groups[name][0].get("args", {})
        context.write(
            "kernel",
            item=item,
            name=name[:300],
            calls=len(groups[name]) / REPEATS,
            us=round(spent[name], 2),
            share=round(spent[name] / total, 4),
            **{label: arguments[key] for key, label in FACTS.items() if key in arguments},
        )
    launches = sum(map(len, groups.values())) / REPEATS
    context.write("kernels in all", item=item, us=round(total, 2), launches=launches, names=len(groups))


def run(context: Context) -> None:
    context.needs_native()
    torch.backends.cudnn.benchmark = True  # as in phase 7: the same kernels
    for item, (make, most) in ITEMS.items():
        if context.enough_time(item):
            measure(context, item, make(context), most)
