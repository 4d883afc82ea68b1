"""What the sanitizer watches: both operators, forward and backward, on shapes that leave no tail full; checked as well."""

from __future__ import annotations

import argparse

import torch

import resnet_cuda
from benchmarks.gpu.phase2_correctness import UNITS, problems, run_problem
from benchmarks.gpu.tools import DONE
from benchmarks.measure import relative_error

COUNT, QUICK_COUNT = 12, 3  # three of each dtype, a third of them norms


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if device.type == "cuda":
        resnet_cuda.use_backend("native")
    torch.backends.cuda.matmul.allow_tf32 = False
    for problem in problems(QUICK_COUNT if chosen.quick else COUNT, seed=2):
        got = run_problem(problem, problem.function, device, problem.dtype)
        expected = run_problem(problem, problem.reference, torch.device("cpu"), torch.float64)
        for one, right in zip(got, expected, strict=True):
            units = relative_error(one.cpu(), right) / torch.finfo(problem.dtype).eps
            if not units <= UNITS[problem.dtype]:
                raise AssertionError(f"{problem.name}, {problem.dtype}: off by {units:.3g} units")
        print(f"{DONE}{problem.name}", flush=True)


if __name__ == "__main__":
    main()
