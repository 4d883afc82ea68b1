"""``python -m benchmarks``: measures this package and its peers in one run.

Every comparison first checks that the candidates' results agree. Prints a table, and writes JSON and plots to
``runs/benchmarks/``, or where ``--output`` says.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import (
    bench_backbone,
    bench_deform_conv,
    bench_frozen_bn,
    bench_inference,
    bench_memory,
    bench_scaling,
    report,
)
from benchmarks.environment import describe
from benchmarks.process_memory import keep_freed_memory
from benchmarks.results import Comparison, Settings
from resnet_cuda import _backend, _extension

# In the order in which they are measured. The parts whose peers keep thread pools of their own are last: after them, in
# the same process, memory-bound kernels were seen to take up to twice as long, ours and the peers' alike.
PARTS = {
    "frozen_bn": bench_frozen_bn.run,
    "backbone": bench_backbone.run,
    "deform_conv_backward": bench_deform_conv.backward,
    "scaling": bench_scaling.run,
    "deform_conv_forward": bench_deform_conv.forward,
    "memory": bench_memory.run,
    "inference": bench_inference.run,
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
RESULTS = Path("runs/benchmarks")
REFERENCE_ASKED = f"{_backend.ENVIRONMENT_VARIABLE}=reference"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--contiguous", action="store_true", help="NCHW tensors instead of channels_last")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--budget", type=float, default=5.0, help="seconds per candidate and case, at least 2 repeats")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's default otherwise")
    parser.add_argument(
        "--fresh-memory",
        action="store_true",
        help="CPU: let the C library get the memory of every large result from the system anew",
    )
    parser.add_argument("--quick", action="store_true", help="a few small cases only: some 10 minutes on 2 cores")
    parser.add_argument(
        "--allow-reference",
        action="store_true",
        help=f"measure the PyTorch reference where nothing is compiled for the device, as {REFERENCE_ASKED} does",
    )
    parser.add_argument(
        "--output", type=Path, help="files to write, without ending; a dated name in runs/benchmarks by default"
    )
    chosen = parser.parse_args(arguments)
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        parser.error(f"part is {unknown[0]!r}; allowed are {', '.join(PARTS)}")
    if chosen.repeats < 1:
        parser.error(f"--repeats is {chosen.repeats}; it must be at least 1")
    return chosen


def why_refused(chosen: argparse.Namespace) -> str | None:
    """Why nothing is measured: the figures would be the reference's, and nobody asked for them."""
    if chosen.allow_reference or os.environ.get(_backend.ENVIRONMENT_VARIABLE, "").strip() == "reference":
        return None
    on_cuda = torch.device(chosen.device).type == "cuda"
    if _extension.CUDA_LOADED if on_cuda else _extension.CPU_LOADED:
        return None
    reason = _extension.CUDA_ERROR if on_cuda and _extension.CPU_LOADED else _extension.CPU_ERROR
    return (
        f"benchmarks: the compiled operators for {chosen.device} are not there, so this would measure the slow PyTorch "
        f"reference: {reason}. Compile them (pip install -e . in the checkout), or ask for the reference by "
        f"--allow-reference or {REFERENCE_ASKED}"
    )


def measure(parts: list[str], settings: Settings, keep: Callable[[list[Comparison]], None]) -> list[Comparison]:
    """``keep`` is called with all rows so far after each case: a run that is interrupted leaves its figures."""
    try:
        from tqdm import tqdm
    except ImportError:

        def tqdm(items, **_):
            return items

    pending = [call for part in parts for call in PARTS[part](settings)]
    rows: list[Comparison] = []
    for call in tqdm(pending, desc="benchmarks", unit="case"):
        rows.append(call())
        keep(rows)
    return rows


def main(arguments: list[str] | None = None) -> int:
    chosen = parse(arguments)
    refusal = why_refused(chosen)
    if refusal is not None:
        print(refusal, file=sys.stderr)
        return 2
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    settings = Settings(
        device, DTYPES[chosen.dtype], not chosen.contiguous, chosen.repeats, chosen.budget, chosen.quick
    )
    environment = describe(device)
    if device.type == "cpu":
        kept = not chosen.fresh_memory and keep_freed_memory()
        environment["freed memory"] = "kept for the next result" if kept else "given back to the system"
    environment["dtype"] = chosen.dtype
    environment["layout"] = "contiguous" if chosen.contiguous else "channels_last"
    stamp = datetime.datetime.now().strftime("%Y-%m-%d")
    base = chosen.output or RESULTS / f"{stamp}-{device.type}-{chosen.dtype}"
    parts = [part for part in PARTS if part in (chosen.parts or PARTS)]
    file = base.with_suffix(".json")
    try:
        rows = measure(parts, settings, lambda rows: report.write_json(file, environment, rows))
    except KeyboardInterrupt:
        left = f"the cases measured until then are in {file}" if file.exists() else "nothing was measured"
        print(f"\nstopped; {left}", file=sys.stderr)
        return 130
    for name, value in environment.items():
        print(f"{name:>14}: {value}")
    print(report.table(rows))
    try:
        report.write_plots(base, environment, rows)
    except ImportError as error:
        print(f"no plot: {error}; pip install 'resnet_cuda[bench]'")
    print(f"written to {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
