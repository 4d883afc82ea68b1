"""Builds the CUDA sources for the CPU: kernel bodies run on fibers, ATen's products on CPU tensors.

The C++ compiler takes the files that nvcc compiles (``csrc/*/*.cu`` and the checks beside them) with
``RESNET_CUDA_EMULATE`` defined; they register as ``torch.ops.resnet_cuda_emulated.*`` for CPU tensors, and
``device_emulation.h`` replaces the GPU. So a machine without one tests every kernel body, index and barrier and all the
host code around them. Under the sanitizers every access outside a tensor ends the process.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from helpers.cpp_library import compiler
from helpers.shared import locked

from build_native.native import CSRC, STABLE_ABI, cuda_sources

HERE = Path(__file__).resolve().parent
NAMESPACE = "resnet_cuda_emulated"
# Small enough that the tests' shapes take several chunks of columns.
WORKSPACE_BYTES = 27_000
# Shorter than the longest lists of some tests.
LONG_LIST = 40
# Fewer than the taps that read some tiles; for double half of it.
TILE_HITS = 128
# Images of more boxes are searched by outer boxes first: most tests' are.
DIRECT_BOXES = 40
# float-cast-overflow: a position that is NaN or far outside must not be cast to an index.
SANITIZERS = (
    *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
    *("-fno-sanitize=null,vptr,nonnull-attribute,returns-nonnull-attribute", "-fno-omit-frame-pointer"),
)


def operator_sources(csrc: Path = CSRC) -> list[Path]:
    """The CUDA library's sources, and the schemas."""
    return [csrc / "registration.cpp", *cuda_sources(csrc)]


def compile_flags(sanitize: bool, csrc: Path = CSRC) -> list[str]:
    return [
        *("-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
        *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        *STABLE_ABI,
        *("-DRESNET_CUDA_EMULATE", f"-DRESNET_CUDA_NAMESPACE={NAMESPACE}", "-DRESNET_CUDA_KEY=CPU"),
        *(f"-DRESNET_CUDA_WORKSPACE_BYTES={WORKSPACE_BYTES}", f"-DRESNET_CUDA_LONG_LIST={LONG_LIST}"),
        *(f"-DRESNET_CUDA_TILE_HITS={TILE_HITS}", f"-DRESNET_CUDA_DIRECT_BOXES={DIRECT_BOXES}"),
        *("-I", str(csrc), "-I", str(HERE), "-isystem", str(Path(torch.__file__).parent / "include")),
        *(SANITIZERS if sanitize else ()),
    ]


def build(
    sources: Iterable[Path],
    library: Path,
    *,
    sanitize: bool = False,
    csrc: Path = CSRC,
    flags: Sequence[str] = (),
    known: Path | None = None,
) -> Path:
    """Compiles ``sources`` as C++, two at a time, and links them to ``library``; objects lie in the folder beside it.

    Args:
        csrc: may be a copy of the checkout's that was changed.
        known: a folder that keeps the objects of the unchanged sources: of a copy only those files are compiled that
            include what was changed.

    Raises:
        RuntimeError: with the compiler's words.
    """
    objects_folder = library.with_suffix(".objects")
    objects_folder.mkdir(parents=True)

    def compile_one(source: Path) -> Path:
        if known is not None:
            original = CSRC / source.relative_to(csrc) if source.is_relative_to(csrc) else source
            target, included = _known_object(original, known, [*compiler(), *compile_flags(sanitize), *flags])
            if all(_same(path, csrc / path.relative_to(CSRC)) for path in included):
                return target
        target = objects_folder / f"{source.name}.o"
        _compile([*compiler(), *compile_flags(sanitize, csrc), *flags], source, target)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    torch_libraries = Path(torch.__file__).parent / "lib"
    _run(
        [
            *(*compiler(), "-shared", *map(str, objects), *(SANITIZERS if sanitize else ())),
            *("-L", str(torch_libraries), "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10", "-o", str(library)),
        ]
    )
    return library


def _compile(command: Sequence[str], source: Path, target: Path) -> None:
    _run([*command, "-x", "c++", "-c", str(source), "-o", str(target)])


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _known_object(source: Path, folder: Path, command: Sequence[str]) -> tuple[Path, list[Path]]:
    """The object of a source of the checkout, compiled the first time, and the files of csrc that are in it."""
    target = folder / f"{source.name}-{hashlib.sha256(' '.join(command).encode()).hexdigest()[:16]}.o"
    rule, unfinished = target.with_suffix(".d"), target.with_suffix(".unfinished")
    with locked(target.with_suffix(".lock")):
        if not rule.exists():
            _compile([*command, "-MMD", "-MF", str(unfinished)], source, target)
            unfinished.rename(rule)
    # "target: source header header \", continued over lines; a space in a name has a backslash, too.
    names = shlex.split(rule.read_text().replace("\\\n", " "))[1:]
    return target, [path for path in map(Path, names) if path.is_relative_to(CSRC)]


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"the emulated build failed: {' '.join(command)}\n{result.stderr}")
