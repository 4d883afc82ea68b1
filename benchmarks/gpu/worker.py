"""Runs phases on request in one process: a line of JSON on stdin asks for one, a line on a pipe says how it went."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

import torch

import resnet_cuda
from benchmarks.gpu.context import Context, first_line
from benchmarks.gpu.records import Results


def run_phase(request: dict, device: torch.device, quick: bool, results: Results) -> str | None:
    """The error of the phase, in a line; None where there was none."""
    print(f"--- phase {request['phase']}", flush=True)
    try:
        module, _, function = request["run"].partition(":")
        run = getattr(importlib.import_module(module), function or "run")
        run(Context(device, quick, results, request["phase"], request["seconds"]))
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        return first_line(error)
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--answer-to", type=int, required=True)
    chosen = parser.parse_args()
    # What one process has measured may be compared; ``run`` says which process a record is of.
    run = f"{chosen.output.stem}, process {os.getpid()}"
    results = Results(chosen.output, device=chosen.device, quick=chosen.quick, run=run)
    device = torch.device(chosen.device, 0 if chosen.device == "cuda" else None)
    if chosen.quick and device.type == "cpu":
        torch.set_num_threads(1)  # tiny shapes, and other programs beside it
    with contextlib.suppress(RuntimeError):  # where the extension is not loaded the first phase says so, and why
        resnet_cuda.use_backend("native")
    for line in sys.stdin:
        error = run_phase(json.loads(line), device, chosen.quick, results)
        os.write(chosen.answer_to, (json.dumps({"error": error}) + "\n").encode())


if __name__ == "__main__":
    main()
