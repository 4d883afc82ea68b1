"""Changes of sources that ninja does not see, since it compares times alone.

A file may change and be older than what was made of the one before: unpacked from an archive, copied with its times, or
written after a clock that was ahead has been set right. The library would be of the old file and name the new sources.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from build_native.sources import sources_in

_RECORD = "sources.json"


def compile_anew_if_unseen(folder: Path, csrc: Path) -> None:
    """Has ninja compile everything in ``folder`` where a source changed and its time does not tell.

    To be called right before ninja runs; what is found is recorded for the next call.
    """
    found = {path.relative_to(csrc).as_posix(): path for path in sources_in(csrc)}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
    record = folder / _RECORD
    if record.exists():
        last = record.stat().st_mtime_ns
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = [name for name, digest in digests.items() if before.get(name) != digest]
        if any(found[name].stat().st_mtime_ns <= last for name in changed):
            (folder / ".ninja_log").unlink(missing_ok=True)  # without its log ninja takes nothing for up to date
    temporary = record.with_suffix(".new")
    temporary.write_text(json.dumps(digests, indent=0), encoding="utf-8")
    temporary.replace(record)
