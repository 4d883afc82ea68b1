"""Phase 0: what is measured, on what; and a first small call of each operator. Where it fails there is nothing to measure."""

from __future__ import annotations

import torch

import resnet_cuda
from benchmarks.environment import describe
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.phase2_correctness import check, problems
from benchmarks.gpu.variants import tf32
from resnet_cuda import _extension

FIRST_CALLS = 6  # four deformable convolutions and two norms, in four dtypes, each forward, backward and twice


def run(context: Context) -> None:
    facts = describe(context.device)
    facts["imported"] = resnet_cuda.__file__
    facts["cpu_extension"] = "loaded" if _extension.CPU_LOADED else _extension.CPU_ERROR
    facts["cuda_extension"] = "loaded" if _extension.CUDA_LOADED else _extension.CUDA_ERROR
    facts["cuda"] = torch.version.cuda
    facts["cudnn"] = torch.backends.cudnn.version()
    if context.device.type == "cuda":
        properties = torch.cuda.get_device_properties(context.device)
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["l2_bytes"] = properties.L2_cache_size
    context.write("environment", **facts)
    context.write("clocks", **read_clocks(context.device))
    context.needs_native()
    with tf32(False):
        for problem in problems(FIRST_CALLS, seed=3):
            check(context, problem)
            context.check()  # at once
