"""Where a run's files lie, and what its child processes import. Nothing here needs torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "gpu_run"


def has_libraries(package: Path) -> bool:
    """Whether a folder ``resnet_cuda`` holds the compiled extension."""
    return any(package.glob("_C*.so"))


def link_benchmarks(folder: Path) -> Path:
    """Makes ``folder`` a place to import ``benchmarks`` from without the checkout's ``resnet_cuda`` beside it."""
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
    return folder


@dataclass(frozen=True)
class Places:
    """``output`` takes logs and results; ``site`` is where the package to be measured was put, None: it is installed.

    ``imports`` is an empty folder but for ``benchmarks`` (``link_benchmarks``) and the folder in which children run: the
    checkout is never on their path, since a package without libraries there would be measured in place of the installed one.
    ``libraries`` is a folder with libraries from another machine.
    """

    output: Path
    imports: Path
    site: Path | None
    device: str
    quick: bool
    libraries: Path | None = None

    def environment(self) -> dict[str, str]:
        """For the children. Of $PYTHONPATH all is kept but a checkout whose package has no libraries."""
        paths = [str(path) for path in (self.site, self.imports) if path]
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep):
            package = Path(entry) / "resnet_cuda"
            if entry and (not package.is_dir() or has_libraries(package)):
                paths.append(str(Path(entry).resolve()))
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
