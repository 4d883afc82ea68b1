"""The host compiler of nvcc, which takes one file and no words behind it."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from pathlib import Path


def host_compiler(compiler: tuple[str, ...], folder: Path) -> str:
    """What ``-ccbin`` is given for $CXX: the command itself or, for several words such as "ccache g++", a script.

    The script lies in ``folder``. Its name follows from its contents, so that another $CXX compiles anew.
    """
    if len(compiler) == 1:
        return compiler[0]
    text = os.fsencode(f'#!/bin/sh\nexec {shlex.join(compiler)} "$@"\n')  # names of files may have any bytes
    script = folder / f"host_compiler_{hashlib.sha256(text).hexdigest()[:8]}"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:  # others may be writing it, too
            written = Path(temporary) / script.name
            written.write_bytes(text)
            written.chmod(0o755)
            written.replace(script)
    return str(script)
