"""Compiles one ``.cu`` file for one architecture, to a cubin; what was compiled before is not compiled again.

The host code is not compiled (``-cubin``), though it decides which kernels are instantiated: a file takes seconds.
Results lie in ``build/compile_gate``, under a hash of the source, every header, the flags and the versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from compile_gate.tools import Tools, code_name, output_of

from build_native.architectures import nvcc_flags
from build_native.folders import CSRC, ROOT

FOLDER = ROOT / "build" / "compile_gate"


@dataclass(frozen=True)
class Compiled:
    cubin: Path
    log: str  # what ptxas -v and the compilers said
    seconds: float


def _key(tools: Tools, source: Path, command: list[str]) -> str:
    digest = hashlib.sha256("\0".join([tools.versions, *command]).encode())
    headers = [path for path in CSRC.rglob("*") if path.suffix in (".h", ".cuh")]
    for path in [source, *sorted(headers)]:
        digest.update(f"\0{path}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def write_whole(path: Path, text: str) -> None:
    """Atomically: a reader never sees half of the file, even if two test runs write it at once."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def compile_source(tools: Tools, source: Path, architecture: str, *flags: str) -> Compiled:
    """The cubin of a source and the compiler's report.

    Raises:
        RuntimeError: with the compiler's messages.
    """
    command = [*tools.command, *nvcc_flags((architecture,)), "-cubin", "-Xptxas", "-v", *flags]
    stem = f"{source.stem}-{code_name(architecture)}-"
    cubin = FOLDER / f"{stem}{_key(tools, source, command)}.cubin"
    record = cubin.with_suffix(".json")
    if cubin.exists() and record.exists():
        return Compiled(cubin, **json.loads(record.read_text()))
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob(f"{stem}*"):
        old.unlink(missing_ok=True)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        unfinished = Path(folder) / cubin.name
        log = output_of([*command, str(source), "-o", str(unfinished)])
        os.replace(unfinished, cubin)
    seconds = time.perf_counter() - begin
    write_whole(record, json.dumps({"log": log, "seconds": seconds}))
    return Compiled(cubin, log, seconds)
