"""Runs the step given in JSON as its argument, or the steps given in lines of JSON on stdin.

Errors of the latter are written in JSON to the pipe whose number is in RESNET_CUDA_ANSWERS.
"""

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path

import torch

import resnet_cuda
from benchmarks.gpu.context import Context, first_line
from benchmarks.gpu.steps import load
from benchmarks.records import Results


def run_step(request: dict) -> str | None:
    """The error of the step, in a line; None where there was none."""
    print(f"--- {request['step']}", flush=True)
    path, quick = Path(request["results"]), request["quick"]
    device = torch.device(request["device"], 0 if request["device"] == "cuda" else None)
    # What one process has measured may be compared; ``run`` says which process a record is of.
    results = Results(path, device=device.type, quick=quick, run=f"{path.stem}, process {os.getpid()}")
    if quick and device.type == "cpu":
        torch.set_num_threads(1)  # tiny shapes, and other programs beside it
    try:
        with contextlib.suppress(RuntimeError):  # where the extension is not loaded the first step says so, and why
            resnet_cuda.use_backend("native")
        context = Context(device, quick, results, request["step"], request["phase"], request["seconds"])
        load(request["run"])(context)
        context.check()
        if device.type == "cuda":
            del context
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except Exception as error:
        traceback.print_exc()
        return first_line(error)[:3000]
    return None


def main() -> None:
    if sys.argv[1:]:
        sys.exit(run_step(json.loads(sys.argv[1])))
    answers = int(os.environ["RESNET_CUDA_ANSWERS"])  # a pipe of its own: libraries print as they like
    for line in sys.stdin:
        os.write(answers, json.dumps({"error": run_step(json.loads(line))}).encode())


if __name__ == "__main__":
    main()
