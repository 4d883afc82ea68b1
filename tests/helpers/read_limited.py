"""Reads files as weights with little memory, in a process that may crash: ``python -m helpers.read_limited``.

For each folder that comes in a line, it answers with a line of JSON: by the file's name "content", or the message of
the error. With the arguments ``fuzz kind seed number`` it reads mutations instead, see helpers.weight_mutations, and
answers with how many were content and how many errors.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from helpers.weight_files import SAMPLES

from resnet_cuda.weights.files import FileError, read

MEMORY = 256 << 20
SECONDS = 120  # for a folder, of which most take one


def limit_memory() -> None:
    """From here on the process may map 256 MB more than it has when it has read a file of each format."""
    faulthandler.enable()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for data in SAMPLES.values():
            path = Path(folder, "warm")
            path.write_bytes(data)
            use(read(path))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def outcome(path: Path) -> str:
    """ "content", when all of it could be visited and copied, or the error's message."""
    try:
        content = read(path)
    except FileError as error:
        return str(error)
    use(content)
    return "content"


def use(value: Any) -> None:
    """Visits everything without regard to what was visited before, and copies every tensor."""
    if isinstance(value, torch.Tensor):
        value.clone()
    elif isinstance(value, dict):
        _use_all(value.values())
    elif isinstance(value, (list, tuple)):
        _use_all(value)
    else:
        assert type(value) in (str, int, float, complex, bytes, bool, set, type(None)), type(value)


def _use_all(values: Iterable[Any]) -> None:
    for value in values:
        use(value)


def fuzz(kind: str, seed: int, number: int) -> dict[str, int]:
    """Reads mutations of one format. The last one, which has crashed the process where it crashes, stays in a file."""
    from helpers.weight_mutations import mutations

    results = {"content": 0, "errors": 0}
    path = Path(sys.argv[5])
    for data in mutations(kind, seed, number):
        path.write_bytes(data)
        message = outcome(path)
        # The first is an explosion; the second the last resort, for an error that nobody has thought of.
        assert "more memory than there is" not in message, message
        assert "it cannot be read: " not in message, message
        assert message == "content" or message.startswith(f"{path}: "), message
        results["content" if message == "content" else "errors"] += 1
    return results


if __name__ == "__main__":
    limit_memory()
    if sys.argv[1:2] == ["fuzz"]:
        print(json.dumps(fuzz(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        for line in sys.stdin:
            signal.alarm(SECONDS)  # a file that is read without end ends the process
            print(json.dumps({path.name: outcome(path) for path in sorted(Path(line.strip()).iterdir())}), flush=True)
