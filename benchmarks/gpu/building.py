"""What is to be measured is put into a folder of its own: built here, or brought as libraries from another machine."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.places import ROOT, Places
from benchmarks.gpu.processes import Outcome, run_command
from benchmarks.gpu.records import Results

CAPABILITY = "import torch; print('{}.{}'.format(*torch.cuda.get_device_capability()))"
QUERY = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
CUDA_LIBRARY = "_cuda_kernels.so"
STAMP = "built-from"


def architecture(seconds: float) -> str | None:
    """The compute capability of the first GPU, such as 9.0, by nvidia-smi or by torch; None where there is none."""
    for command in (QUERY, [sys.executable, "-c", CAPABILITY]):
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT.parent)
        except (OSError, subprocess.TimeoutExpired):
            continue
        found = re.match(r"\d+\.\d+\s", result.stdout)
        if result.returncode == 0 and found:
            return found[0].strip()
    return None


def sources_stamp(environment: dict[str, str]) -> str:
    """Changes with the sources, the Python and what the build is asked for."""
    wanted = {name: environment.get(name) for name in ("RESNET_CUDA_BUILD", "TORCH_CUDA_ARCH_LIST", "CXX", "CUDA_HOME")}
    digest = hashlib.sha256(json.dumps([sys.version, wanted]).encode())
    folders = ("csrc", "build_native", "resnet_cuda")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in sorted([*files, ROOT / "setup.py", ROOT / "pyproject.toml"]):
        if path.suffix not in (".so", ".pyc"):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def missing_libraries(package: Path, device: str) -> str | None:
    """What a package folder lacks to be measured on ``device``, in a sentence."""
    there = sorted(path.name for path in package.glob("*.so"))
    wanted = [f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    if not set(there) & set(wanted):
        return f"there is no {wanted[0]}, which this Python needs, but {', '.join(there) or 'no library at all'}"
    if device == "cuda" and CUDA_LIBRARY not in there:
        return f"there is no {CUDA_LIBRARY}, but {', '.join(there)}"
    return None


def build(places: Places, seconds: float, results: Results) -> Outcome:
    """``pip install`` of this checkout into ``places.site``; nothing is done where that was built from the same files."""
    begin = time.monotonic()
    environment = dict(os.environ)
    if places.device == "cuda":
        environment.setdefault("RESNET_CUDA_BUILD", "cuda")
        if not environment.get("TORCH_CUDA_ARCH_LIST"):
            found = architecture(seconds / 3)
            if found is None:
                error = "there is no GPU, so it is not known what to build for"
                return Outcome("error", time.monotonic() - begin, error)
            environment["TORCH_CUDA_ARCH_LIST"] = found
    stamp, stamp_file = sources_stamp(environment), places.site / STAMP
    reused = stamp_file.exists() and stamp_file.read_text() == stamp
    outcome = Outcome("ok", 0.0)
    if not reused:
        shutil.rmtree(places.site, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
        command += ["--verbose", "--disable-pip-version-check", "--target", str(places.site), str(ROOT)]
        left = seconds - (time.monotonic() - begin)
        outcome = run_command(command, left, places.output / "build.log", environment, places.imports)
    package = places.site / "resnet_cuda"
    results.write(
        kind="build",
        architectures=environment.get("TORCH_CUDA_ARCH_LIST"),
        libraries=sorted(path.name for path in package.glob("*.so")),
        reused=reused,
        seconds=round(outcome.seconds, 1),
    )
    status, error = outcome.status, outcome.error
    if status == "error":  # the compiler's first word says more than pip's last
        lines = (places.output / "build.log").read_text(errors="replace").splitlines()
        error = next((line.strip()[-400:] for line in lines if re.search(r"\berror: |^\s*resnet_cuda: ", line)), error)
    elif status == "ok" and environment.get("RESNET_CUDA_BUILD") != "none":
        missing = missing_libraries(package, places.device)
        status, error = ("ok", None) if missing is None else ("error", f"after the build {missing}")
    if status == "ok" and not reused:
        stamp_file.write_text(stamp)
    return Outcome(status, time.monotonic() - begin, error)


def library_folders() -> list[str]:
    """Where the libraries of torch and of its CUDA packages lie; torch is not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return []
    torch = Path(next(iter(spec.submodule_search_locations)))
    return [str(folder) for folder in (torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib")))]


def unresolved(library: Path, seconds: float) -> list[str]:
    """What ldd does not find for a library, torch's libraries being at hand: other libraries, versions of symbols."""
    paths = [*library_folders(), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path)}
    try:
        result = subprocess.run(
            ["ldd", str(library)], env=environment, capture_output=True, text=True, timeout=max(1.0, seconds)
        )
    except FileNotFoundError:
        return []  # the import decides
    if result.returncode != 0:
        return [(result.stderr or result.stdout).strip().replace(str(library), library.name)[-200:]]
    lines = [line.strip().replace(f"{library}: ", "") for line in (result.stdout + result.stderr).splitlines()]
    return [line for line in lines if "not found" in line]


def libraries(places: Places, seconds: float, results: Results) -> Outcome:
    """Puts this checkout's Python files and the libraries of ``places.libraries`` together in ``places.site``; asks ldd.

    The step behind this one imports them.
    """
    begin = time.monotonic()

    def failed(error: str) -> Outcome:
        return Outcome("error", time.monotonic() - begin, f"--libraries {places.libraries}: {error}")

    if not places.libraries.is_dir():
        return failed("there is no such folder")
    missing = missing_libraries(places.libraries, places.device)
    if missing is not None:
        return failed(missing)
    shutil.rmtree(places.site, ignore_errors=True)
    package = places.site / "resnet_cuda"
    shutil.copytree(ROOT / "resnet_cuda", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    copied = [shutil.copy2(path, package) for path in sorted(places.libraries.glob("*.so"))]
    results.write(kind="libraries", libraries={Path(path).name: Path(path).stat().st_size for path in copied})
    for path in copied:
        lacking = unresolved(Path(path), seconds - (time.monotonic() - begin))
        if lacking:
            return failed(f"{Path(path).name}: {'; '.join(lacking)}")
    return Outcome("ok", time.monotonic() - begin)
