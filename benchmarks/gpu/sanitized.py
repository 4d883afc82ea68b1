"""What the sanitizer watches: both operators, forward and backward, on shapes that leave no tail full; checked as well."""

from __future__ import annotations

import argparse

import torch

import resnet_cuda
from benchmarks.gpu.phase2_correctness import UNITS, problems, run_problem
from benchmarks.measure import relative_error

COUNT = 12  # three of each dtype, a third of them norms


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    device = torch.device(parser.parse_args().device)
    if device.type == "cuda":
        resnet_cuda.use_backend("native")
    torch.backends.cuda.matmul.allow_tf32 = False
    for problem in problems(COUNT, seed=2):
        got = run_problem(problem, problem.function, device, problem.dtype)
        expected = run_problem(problem, problem.reference, torch.device("cpu"), torch.float64)
        for one, right in zip(got, expected, strict=True):
            units = relative_error(one.cpu(), right) / torch.finfo(problem.dtype).eps
            if not units <= UNITS[problem.dtype]:
                raise AssertionError(f"{problem.name}, {problem.dtype}: off by {units:.3g} units")
        print(problem.name, flush=True)


if __name__ == "__main__":
    main()
