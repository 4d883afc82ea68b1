"""What is to be measured is put into a folder of its own: built here, or brought as libraries from another machine."""

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

from benchmarks.gpu.processes import ROOT, Outcome, Places, run_command
from benchmarks.records import Results

CAPABILITY = "import torch; print('{}.{}'.format(*torch.cuda.get_device_capability()))"
CUDA_LIBRARY = "_cuda_kernels.so"
INPUTS = ("RESNET_CUDA_BUILD", "TORCH_CUDA_ARCH_LIST", "CXX", "CUDA_HOME")


def sources_stamp(environment: dict[str, str]) -> str:
    """Changes with the sources, the Python and what the build is asked for."""
    digest = hashlib.sha256(json.dumps([sys.version, {name: environment.get(name) for name in INPUTS}]).encode())
    folders = [ROOT / name for name in ("csrc", "build_native", "resnet_cuda")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
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
    """``pip install`` of this checkout into ``places.site``, unless that was built from the same files."""
    begin, log, environment = time.monotonic(), places.output / "build.log", dict(os.environ)
    log.unlink(missing_ok=True)
    if places.device == "cuda":
        environment.setdefault("RESNET_CUDA_BUILD", "cuda")
        if not environment.get("TORCH_CUDA_ARCH_LIST"):
            asked = run_command([sys.executable, "-c", CAPABILITY], seconds / 2, log, environment, places.imports)
            found = re.findall(r"^\d+\.\d+$", log.read_text(encoding="utf-8"), re.MULTILINE)
            if asked.status != "ok" or not found:
                error = f"there is no GPU, so it is not known what to build for: {asked.error or 'torch named none'}"
                return Outcome("error" if asked.status == "ok" else asked.status, asked.seconds, error)
            environment["TORCH_CUDA_ARCH_LIST"] = found[-1]
    stamp, stamp_file = sources_stamp(environment), places.site / "built-from"
    reused = stamp_file.exists() and stamp_file.read_text(encoding="utf-8") == stamp
    status, error = "ok", None
    if not reused:
        shutil.rmtree(places.site, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
        command += ["--verbose", "--disable-pip-version-check", "--target", str(places.site), str(ROOT)]
        outcome = run_command(command, seconds - (time.monotonic() - begin), log, environment, places.imports)
        status, error = outcome.status, outcome.error
    package = places.site / "resnet_cuda"
    built = {"libraries": sorted(path.name for path in package.glob("*.so")), "reused": reused}
    results.write(kind="build", architectures=environment.get("TORCH_CUDA_ARCH_LIST"), **built)
    if status == "error":  # the compiler's first word says more than pip's last
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        error = next((line.strip()[-400:] for line in lines if re.search(r"\berror: |^\s*resnet_cuda: ", line)), error)
    elif status == "ok" and environment.get("RESNET_CUDA_BUILD") != "none":
        missing = missing_libraries(package, places.device)
        status, error = ("ok", None) if missing is None else ("error", f"after the build {missing}")
    if status == "ok":
        stamp_file.write_text(stamp, encoding="utf-8")
    return Outcome(status, time.monotonic() - begin, error)


def unresolved(library: Path, seconds: float) -> list[str]:
    """The libraries and symbol versions that ldd does not find, torch's and its CUDA packages' being on the path."""
    torch = Path(importlib.util.find_spec("torch").origin).parent  # which is not imported
    folders = [torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib")), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(str(folder) for folder in folders if str(folder))}
    options = {"env": environment, "capture_output": True, "text": True, "timeout": max(1.0, seconds)}
    try:
        result = subprocess.run(["ldd", str(library)], **options)
    except FileNotFoundError:
        return []  # the import decides
    if result.returncode != 0:
        return [(result.stderr or result.stdout).strip().replace(str(library), library.name)[-200:]]
    lines = [line.strip().replace(f"{library}: ", "") for line in (result.stdout + result.stderr).splitlines()]
    return [line for line in lines if "not found" in line]


def libraries(places: Places, seconds: float, results: Results) -> Outcome:
    """This checkout's Python files and the libraries of ``places.libraries`` go to ``places.site``; ldd is asked."""
    begin = time.monotonic()
    error = None if places.libraries.is_dir() else "there is no such folder"
    error = error or missing_libraries(places.libraries, places.device)
    if error is None:
        shutil.rmtree(places.site, ignore_errors=True)
        package = places.site / "resnet_cuda"
        shutil.copytree(ROOT / "resnet_cuda", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        copied = [Path(shutil.copy2(path, package)) for path in sorted(places.libraries.glob("*.so"))]
        results.write(kind="libraries", libraries={path.name: path.stat().st_size for path in copied})
        lacking = {path.name: unresolved(path, seconds - (time.monotonic() - begin)) for path in copied}
        error = next((f"{name}: {'; '.join(lines)}" for name, lines in lacking.items() if lines), None)
    error = error and f"--libraries {places.libraries}: {error}"
    return Outcome("error" if error else "ok", time.monotonic() - begin, error)
