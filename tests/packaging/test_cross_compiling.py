"""The CPU part compiled and linked for ARM, on Linux and macOS, by zig's clang, which has the systems' headers.

Nothing of it is run. Skipped where the Python package ziglang is not installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from build_native import native
from build_native.plan import Plan, find_torch

pytest.importorskip("ninja")
pytest.importorskip("pybind11")
pytest.importorskip("ziglang")

ZIG = (sys.executable, "-m", "ziglang", "c++")
# The system by sys.platform, zig's name of the target, the ending of a shared library, how one begins.
TARGETS = [
    pytest.param("linux", "aarch64-linux-gnu.2.28", ".so", b"\x7fELF", id="linux"),
    pytest.param("darwin", "aarch64-macos", ".dylib", b"\xcf\xfa\xed\xfe", id="macos"),
]


@pytest.fixture
def python_headers(tmp_path, monkeypatch):
    """This Python's, which serve any 64-bit system but for a switch over the systems that Debian has put in them."""
    folder = tmp_path / "python"
    shutil.copytree(sysconfig.get_path("include"), folder)
    generated = Path(sysconfig.get_config_h_filename())
    multiarch = sysconfig.get_config_var("MULTIARCH")
    real = generated.parents[1] / multiarch / generated.parent.name / generated.name if multiarch else generated
    shutil.copy(real if real.is_file() else generated, folder / "pyconfig.h")
    monkeypatch.setattr(native.sysconfig, "get_path", lambda name: str(folder))


def torch_for(target, ending, folder):
    """torch's real headers, which are the same everywhere, and libraries without content."""
    torch = find_torch()
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(torch.root / "include", target_is_directory=True)
    source = folder / "empty.c"
    source.touch()
    for name in ("torch", "torch_cpu"):
        library = folder / "lib" / f"lib{name}{ending}"
        subprocess.run([*ZIG[:3], "cc", "-target", target, "-shared", source, "-o", library], check=True)
    return type(torch)(torch.version, folder)


@pytest.mark.parametrize(("system", "target", "ending", "magic"), TARGETS)
def test_the_cpu_part_for_arm(system, target, ending, magic, python_headers, tmp_path, monkeypatch):
    torch = torch_for(target, ending, tmp_path / "torch")
    folder = tmp_path / "build"
    folder.mkdir()
    plan = Plan("cpu", (*ZIG, "-target", target), torch, compile_flags=("-Werror", "-O1"))
    with monkeypatch.context() as patch:
        patch.setattr(native.platform, "machine", lambda: "arm64")
        patch.setattr(sys, "platform", system)
        libraries = native.write_ninja_file(plan, folder, "1.2.3").values()
    ninja = [native.find_ninja(), "-C", str(folder), "--quiet", "-j", os.environ.get("MAX_JOBS", "2")]
    done = subprocess.run(ninja, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    for library in libraries:
        content = library.read_bytes()
        assert content.startswith(magic)
        assert b"resnet_cuda version 1.2.3" in content
