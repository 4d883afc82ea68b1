"""The libraries that the tests of this folder load: from the CUDA sources or on the device layer, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from emulation.build import CSRC, HERE, build, operator_sources
from emulation.child import LIBRARIES
from helpers.shared import made_once

from build_native.architectures import OWN_ARCHITECTURE


def sources_of(name: str, csrc: Path = CSRC) -> list[Path]:
    if name == "operators":
        return operator_sources(csrc)
    file = {"self_test": "self_test_kernels.cpp"}.get(name, f"{name}_op.cpp")
    return [HERE / file]


def build_library(
    name: str,
    folder: Path,
    *,
    sanitize: bool = False,
    csrc: Path = CSRC,
    flags: Sequence[str] = (),
    known: Path | None = None,
) -> Path:
    """``folder/name.so`` for ``torch.ops.load_library``.

    ``"operators/<operator>"``: only that one's kernels, without those for one architecture; with ``"/own"`` these, too,
    and those of the folder ``<operator>_fused``.
    """
    name, _, part = name.partition("/")
    operator, _, own = part.partition("/")
    sources = sources_of(name, csrc)
    if operator:
        left_out = () if own else tuple(OWN_ARCHITECTURE)
        folders = ("csrc", operator, *((f"{operator}_fused",) if own else ()))
        sources = [path for path in sources if path.parent.name in folders and not path.name.endswith(left_out)]
    return build(sources, folder / f"{name}.so", sanitize=sanitize, csrc=csrc, flags=flags, known=known)


def find_library(name: str, folder: Path) -> Path:
    """The library that this process was given (see child.py), else one built without sanitizers, once per test run."""
    given = os.environ.get(LIBRARIES)
    built = Path(given) if given else made_once(folder / name, lambda folder: build_library(name, folder))
    return built / f"{name}.so"
