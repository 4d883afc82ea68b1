"""The kernels compiled with other CUDA toolkits than this machine's, from Python packages; prints a table.

    PYTHONPATH=tests python -m compile_gate.toolkits [--toolkit 12.8 13.5] [--folder DIR]

From 13.0 on the packages have nvcc: with it the gate's tests run, and a wheel is built, whose CUDA library must load.
Before, they have the assembler only: it gets the PTX that this machine's nvcc writes, of which it may not spill more
than a few bytes, nor warn. Exit status 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from compile_gate.assembling import assembled_faults
from compile_gate.tools import GATED, Tools, UnavailableError, find_tools, output_of

from build_native.folders import ROOT

TOOLKITS = ("12.4", "12.6", "12.8", "12.9", "13.0", "13.1", "13.2", "13.3", "13.4", "13.5")
# What nvcc needs to compile the sources; its C++ library (cccl) has had version numbers of its own since 13.3.
PACKAGES = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime", "nvidia-cuda-cccl")


def number(toolkit: str) -> tuple[int, ...]:
    return tuple(map(int, toolkit.split(".")))


def has_nvcc(toolkit: str) -> bool:
    return number(toolkit) >= (13, 0)


def requirements(toolkit: str) -> list[str]:
    """What pip is asked for."""
    if not has_nvcc(toolkit):
        return [f"nvidia-cuda-nvcc-cu12=={toolkit}.*"]
    own = [f"{package}=={toolkit}.*" for package in PACKAGES[:-1]]
    return [*own, f"{PACKAGES[-1]}=={toolkit}.*" if number(toolkit) < (13, 3) else f"{PACKAGES[-1]}>=13.3"]


def run(command: list[str], **variables: str) -> str:
    """Its output.

    Raises:
        RuntimeError: with the output, where it fails.
    """
    settings = [f"{name}={value}" for name, value in variables.items()]
    return output_of(["env", *settings, *command])


def install(toolkit: str, folder: Path) -> Path:
    """The folder with the toolkit's ``bin``; pip's own constraints, such as those for torch, are left aside."""
    target = folder / toolkit
    root = target / "nvidia" / ("cu13" if has_nvcc(toolkit) else "cuda_nvcc")
    if not (root / "bin" / "ptxas").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        run([*command, "--target", str(target), *requirements(toolkit)], PIP_CONSTRAINT=os.devnull)
    return root


def gate_passes(root: Path) -> str:
    """The last line of the gate's tests."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(Path(__file__).with_name("test_compile_gate.py"))]
    output = run(command, CUDA_HOME=str(root), RESNET_CUDA_TEST_REQUIRE_GATE="1")
    return output.strip().splitlines()[-1].strip("= ")


def wheel_loads(root: Path, folder: Path) -> str:
    """What the wheel that this toolkit builds says of its CUDA library."""
    target = folder / "wheel"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", str(target)]
    run([*command, str(ROOT)], CUDA_HOME=str(root), RESNET_CUDA_BUILD="cuda")
    (wheel,) = target.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    code = "import resnet_cuda.__main__ as main; main.main(['info', '--json'])"
    text = run([sys.executable, "-W", "ignore", "-c", code], PYTHONPATH=str(target), PYTHONSAFEPATH="1")
    facts = json.loads(text[text.index("{") :])
    if facts["CUDA_operators"] != "native":
        raise RuntimeError(f"the CUDA library of the wheel is not loaded: {facts['CUDA_operators']}")
    return f"wheel with CUDA {facts['built_with_CUDA']} loads"


def with_nvcc(toolkit: str, folder: Path) -> tuple[bool, str]:
    print(f"{time.strftime('%T')} CUDA {toolkit}", flush=True)
    try:
        root = install(toolkit, folder)
        done = [f"gate: {gate_passes(root)}"]
        with tempfile.TemporaryDirectory() as temporary:
            done.append(wheel_loads(root, Path(temporary)))
    except RuntimeError as error:
        print(error)
        return False, str(error).strip().splitlines()[-1]
    return True, "; ".join(done)


def with_assembler(tools: Tools, toolkits: list[str], folder: Path) -> dict[str, tuple[bool, str]]:
    ptxas = {toolkit: install(toolkit, folder) / "bin" / "ptxas" for toolkit in toolkits}
    faults: dict[str, list[str]] = {toolkit: [] for toolkit in toolkits}
    passed: dict[str, list[str]] = {toolkit: [] for toolkit in toolkits}
    for architecture in GATED if toolkits else ():
        print(f"{time.strftime('%T')} assembling for {architecture}", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            for toolkit, found in assembled_faults(tools, ptxas, architecture, Path(temporary)).items():
                faults[toolkit] += [f"{architecture}: {fault}" for fault in found]
                passed[toolkit].append(architecture)
    for toolkit in toolkits:
        print(*faults[toolkit], sep="\n", end="\n" if faults[toolkit] else "")
    return {
        toolkit: (not faults[toolkit], f"assembler: {len(faults[toolkit])} faults on {' '.join(passed[toolkit])}")
        for toolkit in toolkits
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toolkit", nargs="+", default=TOOLKITS, metavar="VERSION", help=f"of {', '.join(TOOLKITS)}")
    parser.add_argument("--folder", type=Path, help="where to install them; a new one by default")
    chosen = parser.parse_args()
    try:
        tools = find_tools()
    except UnavailableError as error:
        sys.exit(f"compile gate: {error}")
    folder = (chosen.folder or Path(tempfile.mkdtemp(prefix="toolkits-"))).resolve()
    results = with_assembler(tools, [it for it in chosen.toolkit if not has_nvcc(it)], folder)
    for toolkit in filter(has_nvcc, chosen.toolkit):
        results[toolkit] = with_nvcc(toolkit, folder)
    print("| CUDA toolkit | passed | |", "|---|---|---|", sep="\n")
    for toolkit, (passed, text) in results.items():
        print(f"| {toolkit} | {'yes' if passed else 'no'} | {text} |")
    return 0 if all(passed for passed, _ in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
