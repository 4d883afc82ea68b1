"""Damages annotations and image files at random; whatever comes out must be a good sample or an error that names it.

    OMP_NUM_THREADS=1 python tests/examples/data/fuzz.py annotations 5000 0
    OMP_NUM_THREADS=1 python tests/examples/data/fuzz.py images 2000 0

The second number is the seed. Memory is limited to 1 GB more than the libraries need, time to 10 minutes of the CPU. A
file or an annotation that ends the process is left in the temporary folder whose name is printed first.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))

from fuzz_annotations import fuzz_annotations
from fuzz_images import fuzz_images

MEMORY, SECONDS = 1 << 30, 600


def limit() -> None:
    """From now on: memory by the gigabyte on top of what is mapped, seconds of the CPU."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def main() -> None:
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(folder, flush=True)
    fuzz_images(30, 1, folder)  # loads all plugins of Pillow before the limit is set
    limit()
    outcomes = {"annotations": fuzz_annotations, "images": fuzz_images}[kind](count, seed, folder)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    print(json.dumps(dict(sorted(outcomes.items()))))


if __name__ == "__main__":
    main()
