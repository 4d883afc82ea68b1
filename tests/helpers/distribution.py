"""Which tests `make quick` leaves out, and how pytest-xdist shares tests out between processes."""

from __future__ import annotations

from pathlib import Path

import pytest

# Folders and files that `make quick` leaves out. What stays: every operator and layer, configurations, weights, both
# backbones and optimize_for_inference, on the CPU and by the compiled operators.
SLOW = (
    "acceleration",
    "benchmarks",
    "compile_gate",
    "contact",
    "cuda",
    "emulation",
    "examples",
    "export",
    "helpers/test_gpu.py",
    "inference/test_forms.py",
    "inference/test_outputs.py",
    "integrations",
    "ops/test_compile.py",
    "ops/test_conv2d_winograd_callers.py",
    "ops/test_flops.py",
    "ops/test_instruction_sets.py",
    "ops/test_opcheck.py",
    "ops/test_second_derivatives.py",
    "ops/test_streaming.py",
    "packaging",
    "test_backend.py",
    "test_calibration.py",
    "test_docs.py",
    "test_docs_site.py",
    "test_docs_tutorials.py",
    "test_fpn_norms.py",
    "test_main.py",
    "test_migration_pages.py",
    "test_norm_statistics_warning.py",
    "test_stage_specs.py",
    "test_variants.py",
    "weights/test_convert.py",
    "weights/test_fuzz_files.py",
    "weights/test_golden.py",
    "weights/test_load_detectors.py",
    "weights/test_timm.py",
)
# Files whose tests take long and need nothing of each other: each test goes to any process. Of all other files the
# tests stay together, since they share what their fixtures have made.
SPREAD = (
    "emulation/test_planted_bugs.py",
    "emulation/test_sanitized.py",
    "examples/test_command_line.py",
    "ops/test_compile.py",
    "ops/test_opcheck.py",
    "ops/test_streaming.py",
    "weights/test_fuzz_files.py",
)
# What to begin with, so that no process is left with a long file when the others have ended. All other files follow.
FIRST = (
    "emulation/test_sanitized.py",
    "emulation/test_planted_bugs.py",
    "compile_gate",
    "examples",
    "benchmarks",
    *SPREAD,
    "export",
    "packaging",
    "ops",
)


def place_of(path: Path) -> str:
    """Of a file, below the folder of all tests."""
    return path.as_posix().rpartition("/tests/")[2]


def within(place: str, places: tuple[str, ...]) -> bool:
    return any(place == one or place.startswith(f"{one}/") for one in places)


def mark(items: list[pytest.Item]) -> None:
    """``slow``, and ``reference`` in that folder; of other tests conftest.py marks the ``backend`` "reference"."""
    for item in items:
        if within(place_of(item.path), SLOW):
            item.add_marker(pytest.mark.slow)
        if within(place_of(item.path), ("reference",)):
            item.add_marker(pytest.mark.reference)


def needs_no_import(path: Path, config: pytest.Config) -> bool:
    """Whether `make quick` leaves out every test of this file: to import all of those takes 10 seconds."""
    return config.getoption("markexpr").startswith("not slow and ") and within(place_of(path), SLOW)


def order(items: list[pytest.Item]) -> None:
    """Files of FIRST to the front, in its order."""

    def rank(item: pytest.Item) -> int:
        return next((number for number, place in enumerate(FIRST) if within(place_of(item.path), (place,))), len(FIRST))

    items.sort(key=rank)


def scheduler(config: pytest.Config, log: object) -> object:
    """pytest-xdist's ``--dist loadfile`` in the order of the tests, with the tests of SPREAD each on its own."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return nodeid if file.rpartition("tests/")[2] in SPREAD else file

    config.option.loadscopereorder = False
    return Scheduler(config, log)
