"""Builds the CUDA sources for the CPU: kernel bodies run in a loop, ATen's products on CPU tensors.

The very files that nvcc compiles (``csrc/*/*.cu`` and the checks beside them) go through the C++ compiler with
``RESNET_CUDA_EMULATE`` defined and register as ``torch.ops.resnet_cuda_emulated.*`` for CPU tensors. So a machine without
a GPU tests every kernel body, every index and all the host code around them; what it cannot test is the launch itself.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import torch

CSRC = Path(__file__).resolve().parents[2] / "csrc"
NAMESPACE = "resnet_cuda_emulated"
# Small enough that the tests' shapes take several chunks of columns.
COLUMN_BYTES = 20_000


def sources() -> list[Path]:
    cpu_only = ("_cpu.cpp", "_portable.cpp", "_avx2.cpp", "_avx512.cpp", "_avx512_bf16.cpp")
    shared = [path for path in CSRC.glob("*/*.cpp") if not path.name.endswith(cpu_only)]
    return sorted([CSRC / "registration.cpp", *shared, *CSRC.glob("*/*.cu")])


def build(folder: Path) -> Path:
    """Compiles and links the emulated library in ``folder`` and returns its path."""
    torch_root = Path(torch.__file__).parent
    flags = [
        *("-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"),
        *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"),
        *("-DRESNET_CUDA_EMULATE", f"-DRESNET_CUDA_NAMESPACE={NAMESPACE}", "-DRESNET_CUDA_KEY=CPU"),
        f"-DRESNET_CUDA_COLUMN_BYTES={COLUMN_BYTES}",
        *("-I", str(CSRC), "-isystem", str(torch_root / "include")),
    ]
    compiler = os.environ.get("CXX", "g++")
    objects, running = [], []
    for source in sources():
        target = folder / f"{source.stem}{source.suffix[1:]}.o"
        objects.append(target)
        running.append(subprocess.Popen([compiler, *flags, "-x", "c++", "-c", str(source), "-o", str(target)]))
    failed = [process.args[-3] for process in running if process.wait() != 0]
    if failed:
        raise RuntimeError(f"the emulated build failed for {', '.join(failed)}")
    library = folder / "resnet_cuda_emulated.so"
    libraries = ["-L", str(torch_root / "lib"), "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run([compiler, "-shared", *map(str, objects), *libraries, "-o", str(library)], check=True)
    return library
