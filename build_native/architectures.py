"""Which GPU architectures there are, and which to compile for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

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
        result = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return ()
    lines = [line.strip() for line in result.stdout.splitlines()]
    return tuple(sorted({line for line in lines if result.returncode == 0 and _PATTERN.match(line)}))


def choose() -> tuple[tuple[str, ...], str]:
    """The architectures, and where they come from."""
    asked = os.environ.get(VARIABLE, "").strip()
    if asked:
        return parse(asked), VARIABLE
    present = gpus_present()
    if present:
        return present, "the GPUs of this machine"
    return DEFAULT, f"default without a GPU; set {VARIABLE} to choose"


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
