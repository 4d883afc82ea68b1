"""Where a call spends its time, kernel by kernel, by torch.profiler."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import synchronize

FACTS = ("registers per thread", "shared memory", "grid", "block", "est. achieved occupancy %")


def kernel_times(call: Callable[[], object], device: torch.device, repeats: int = 5) -> list[dict[str, object]]:
    """For each kernel, the longest first: name, microseconds, share and number of launches per call, launch shape.

    Without a GPU: the same for operators, each including the operators that it calls.
    """
    for _ in range(2):
        call()
    on_gpu = device.type == "cuda"
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        for _ in range(repeats):
            call()
        synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    categories = ("kernel", "gpu_memcpy", "gpu_memset") if on_gpu else ("cpu_op",)
    groups: dict[str, list[dict]] = defaultdict(list)
    for event in trace["traceEvents"]:
        if event.get("cat") in categories and "dur" in event:
            groups[event["name"]].append(event)
    if not groups:
        raise RuntimeError(f"the profiler has recorded nothing of {', '.join(categories)}")
    total = sum(event["dur"] for events in groups.values() for event in events)
    kernels = []
    for name, events in groups.items():
        spent, given = sum(event["dur"] for event in events), events[0].get("args", {})
        facts = {"us": round(spent / repeats, 2), "share": round(spent / total, 4), "calls": len(events) / repeats}
        kernels.append({"name": name[:300], **facts, **{key: given[key] for key in FACTS if key in given}})
    return sorted(kernels, key=lambda kernel: kernel["us"], reverse=True)
