"""Phase 0: what everything else was measured on."""

from __future__ import annotations

import torch

from benchmarks.environment import describe
from benchmarks.gpu.clocks import read_clocks
from benchmarks.gpu.context import Context
from resnet_cuda import _extension


def run(context: Context) -> None:
    facts = describe(context.device)
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
