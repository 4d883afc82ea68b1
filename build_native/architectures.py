"""Which GPU architectures there are, and which to compile for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable

from build_native import commands
from build_native.errors import BuildError

# What the package promises to run on: the compile gate holds every kernel to its limits on each. A new one is an entry
# here; a kernel that takes more registers on it fails with the name of its row in tests/compile_gate/limits.py.
SUPPORTED = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

# Files whose kernels use what only one architecture has, and no later one (wgmma): compiled for it alone, chosen at run
# time by the GPU's capability.
OWN_ARCHITECTURE = {"_sm90a.cu": "9.0a"}

VARIABLE = "TORCH_CUDA_ARCH_LIST"
DEFAULT = ("8.0", "9.0+PTX")
NAMES = {
    "Volta": "7.0",
    "Turing": "7.5",
    "Ampere": "8.0;8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;12.0+PTX",
}
_PATTERN = re.compile(r"^(\d+)\.(\d)([af]?)(\+PTX)?$")


def parse(text: str) -> tuple[str, ...]:
    """Parses ``"8.0;9.0+PTX"`` (semicolons or spaces; also names such as Hopper) to a tuple.

    Raises:
        BuildError: naming the entry that is not an architecture.
    """
    entries: list[str] = []
    for entry in re.split(r"[;\s]+", text.strip()):
        name, ptx = entry.removesuffix("+PTX"), entry.endswith("+PTX")
        expanded = NAMES.get(name, name).split(";")
        if ptx and not expanded[-1].endswith("+PTX"):
            expanded[-1] += "+PTX"
        for architecture in expanded:
            if not _PATTERN.match(architecture):
                raise BuildError(
                    f"{VARIABLE} has {entry!r}; allowed are numbers such as 8.0, 9.0a or 9.0+PTX and the names "
                    f"{', '.join(NAMES)}, separated by semicolons or spaces"
                )
            entries.append(architecture)
    return tuple(dict.fromkeys(entries))


def gpus_present() -> tuple[str, ...]:
    """Compute capabilities of this machine's GPUs, asked of nvidia-smi so that torch need not be imported."""
    command = shutil.which("nvidia-smi")
    if not command:
        return ()
    query = [command, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        result = commands.run(query, timeout=60)
    except subprocess.TimeoutExpired:
        return ()
    lines = [line.strip() for line in result.stdout.splitlines()]
    return tuple(sorted({line for line in lines if result.returncode == 0 and _PATTERN.match(line)}))


def _number(architecture: str) -> tuple[int, int]:
    """(9, 0) of "9.0a+PTX"."""
    match = _PATTERN.match(architecture)
    return int(match[1]), int(match[2])


def _too_old(architectures: Iterable[str]) -> list[str]:
    return [it for it in architectures if _number(it) < _number(SUPPORTED[0])]


def _unknown(architectures: Iterable[str], known: Collection[str]) -> list[str]:
    numbers = {_number(it) for it in known}
    return [it for it in architectures if _number(it) not in numbers]


def _asked(text: str, known: Collection[str]) -> tuple[tuple[str, ...], list[str]]:
    """The architectures of the variable. It is often one for all packages: those that are too old are left out."""
    asked = parse(text)
    old = _too_old(asked)
    wanted = tuple(it for it in asked if it not in old)
    if not wanted:
        raise BuildError(f"{VARIABLE} is {text!r}; the kernels need compute capability {SUPPORTED[0]} or later")
    unknown = _unknown(wanted, known)
    if unknown:
        raise BuildError(
            f"{VARIABLE} is {text!r}, but this CUDA toolkit cannot compile for {' '.join(unknown)}; it can for "
            f"{' '.join(known)}. Use another toolkit, or set {VARIABLE} to some of these"
        )
    return wanted, [f"left out, older than {SUPPORTED[0]}: {' '.join(old)}"] if old else []


def _for_gpus(present: tuple[str, ...], known: Collection[str]) -> tuple[tuple[str, ...], list[str]]:
    """For GPUs that are newer than the toolkit: PTX of its newest architecture, which the driver compiles."""
    remarks = []
    old = _too_old(present)
    if old:
        remarks.append(f"no kernels for compute capability {' '.join(old)}: they need {SUPPORTED[0]} or later")
    wanted = [it for it in present if it not in old]
    newer = _unknown(wanted, known)
    if newer:
        least = min(map(_number, newer))
        newest = max((it for it in known if _number(it) < least), key=_number)
        remarks.append(
            f"this CUDA toolkit cannot compile for {' '.join(newer)}; in its place PTX of {newest}, which the driver "
            "compiles when the library is loaded"
        )
        wanted = [it for it in wanted if it not in (*newer, newest)] + [f"{newest}+PTX"]
    return tuple(wanted), remarks


def choose(known: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The architectures to compile for, and remarks: where they come from, and what was left out.

    Args:
        known: those that the toolkit compiles for, such as "8.0".

    Raises:
        BuildError: for a value of the variable that cannot be met.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        wanted, remarks = _asked(text, known)
        return wanted, (f"architectures from: {VARIABLE}", *remarks)
    wanted, remarks = _for_gpus(gpus_present(), known)
    if wanted:
        return wanted, ("architectures from: the GPUs of this machine", *remarks)
    return DEFAULT, (f"architectures from: default without a GPU; set {VARIABLE} to choose", *remarks)


def architectures_of(name: str, architectures: tuple[str, ...]) -> tuple[str, ...]:
    """The ``architectures`` that the source file ``name`` is compiled for.

    For a file of one architecture: that one if it is needed for ``architectures``, else none.
    """
    own = next((own for ending, own in OWN_ARCHITECTURE.items() if name.endswith(ending)), None)
    if own is None:
        return architectures
    gpus = own.rstrip("af")
    return (own,) if any(entry.removesuffix("+PTX").rstrip("af") == gpus for entry in architectures) else ()


def nvcc_flags(architectures: tuple[str, ...]) -> list[str]:
    """``-gencode`` for each; +PTX adds code for later GPUs."""
    flags: list[str] = []
    for architecture in architectures:
        number = architecture.removesuffix("+PTX").replace(".", "")
        flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if architecture.endswith("+PTX"):
            flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return flags
