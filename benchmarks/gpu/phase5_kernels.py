"""Phase 5: where one forward and backward at C4, batch 8, spends its time, kernel by kernel."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import names
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


def run(context: Context) -> None:
    context.needs_native()
    variant = VARIANTS[names.OURS_BFLOAT16]
    tensors = variant.cast(make_sets(layer("C4", 8, context.quick), context.device, 1)[0], differentiable=True)
    for _ in range(2):
        gradients(variant, tensors)()
    on_gpu = context.device.type == "cuda"
    activities = [ProfilerActivity.CUDA, ProfilerActivity.CPU] if on_gpu else [ProfilerActivity.CPU]
    synchronize(context.device)
    with profile(activities=activities) as profiler:
        for _ in range(REPEATS):
            gradients(variant, tensors)()
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
    for name in sorted(spent, key=spent.get, reverse=True):
        arguments = groups[name][0].get("args", {})
        context.write(
            "kernel",
            name=name[:300],
            calls=len(groups[name]) / REPEATS,
            us=round(spent[name], 2),
            share=round(spent[name] / total, 4),
            **{label: arguments[key] for key, label in FACTS.items() if key in arguments},
        )
    context.write("kernels in all", us=round(total, 2), stage="C4", batch=8, dtype=str(torch.bfloat16))
