"""The build's own modules are part of the checkout, not of the package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if (ROOT / "build_native").is_dir():
    sys.path.insert(0, str(ROOT))
else:
    collect_ignore_glob = ["test_*.py"]  # a wheel alone is being tested


@pytest.fixture
def fake_toolkit(tmp_path, monkeypatch):
    """Makes toolkits whose nvcc is a script; nothing of this machine's own is found."""
    variables = ("CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST", "RESNET_CUDA_BUILD", "CXX", "NVCC_CCBIN")
    for variable in (*variables, "CPPFLAGS", "CXXFLAGS", "LDFLAGS"):
        monkeypatch.delenv(variable, raising=False)
    from build_native import toolkit

    monkeypatch.setattr(toolkit, "candidates", lambda original=toolkit.candidates: _below(tmp_path, original()))

    of_12_6 = (50, 70, 75, 80, 86, 87, 89, 90)

    def make(name="cuda", header=True, runtime=True, works=True, architectures=of_12_6):
        root = tmp_path / name
        (root / "bin").mkdir(parents=True)
        (root / "include").mkdir()
        (root / "lib64").mkdir()
        if header:
            (root / "include" / "cuda_runtime.h").touch()
        if runtime:
            (root / "lib64" / "libcudart_static.a").touch()
        nvcc = root / "bin" / "nvcc"
        listed = " ".join(f"compute_{architecture}" for architecture in architectures)
        lines = [
            "#!/bin/sh",
            'if [ "$1" = --version ]; then echo "Cuda compilation tools, release 12.6, V12.6.1"; exit; fi',
            f'if [ "$1" = --list-gpu-arch ]; then echo {listed}; exit; fi',
        ]
        lines.append(f'echo "#\\$ TOP={root}/bin/.." >&2' if works else 'echo "nvcc fatal: no licence" >&2; exit 1')
        nvcc.write_text("\n".join(lines) + "\n")
        nvcc.chmod(0o755)
        return nvcc

    return make


def _below(folder, candidates):
    return [(origin, nvcc) for origin, nvcc in candidates if nvcc.is_relative_to(folder)]
