"""Plants a bug in a copy of the CUDA sources: the emulated tests must fail, and say why."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from emulation.build import CSRC, HERE
from emulation.child import SANITIZER_EXIT, Forked, run_tests, sanitizer_runtimes
from emulation.libraries import build_library
from emulation.planted_bugs import ALL_ASKED_FOR, ALL_BUGS, BUGS, PlantedBug
from helpers.shared import run_folder

FLOAT32_ONLY = ("-DRESNET_CUDA_FLOAT32_ONLY",)  # dispatch.h; compiles faster
TESTS_FAILED = 1  # pytest's exit status: neither an interrupted run nor an error of its own


def sound() -> Iterator[PlantedBug]:
    """Without a bug all these tests pass, also in such small libraries. (On whole ones, and under the sanitizers, other
    tests show it.) One run per test file."""
    kinds: dict[tuple[str, str], list[PlantedBug]] = {}
    for bug in BUGS:
        if not bug.sanitize:
            kinds.setdefault((bug.library, bug.tests[0]), []).append(bug)
    for (library, file), bugs in kinds.items():
        chosen = {bug.tests[2] if len(bug.tests) > 1 else "" for bug in bugs}
        expression = " or ".join(f"({one})" for one in sorted(chosen))
        tests = (file,) if "" in chosen else (file, "-k", expression)
        yield replace(bugs[0], name=f"none_in_{library}_{file}", new=bugs[0].old, tests=tests)


SOUND = tuple(sound()) if ALL_ASKED_FOR else ()


def run_copy(bug: PlantedBug, folder: Path, known: Path, forked: Forked) -> subprocess.CompletedProcess[str]:
    """The bug's tests in a child process, on its library from a copy of the sources."""
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc)
    file = csrc / bug.file
    text = file.read_text()
    assert text.count(bug.old) == 1, f"{bug.file} has changed: {bug.old!r} must occur exactly once for {bug.name}"
    file.write_text(text.replace(bug.old, bug.new))
    build_library(bug.library, folder, sanitize=bug.sanitize, csrc=csrc, flags=FLOAT32_ONLY, known=known)
    test_file, *options = bug.tests
    arguments = [str(HERE / test_file), "-x", *options]
    return run_tests(arguments, folder, sanitize=True) if bug.sanitize else forked.run_tests(arguments, folder)


def test_all_bugs_can_be_planted():
    """Those, too, that this run does not plant."""
    counts = {bug.name: (CSRC / bug.file).read_text().count(bug.old) for bug in ALL_BUGS}
    assert len(counts) == len(ALL_BUGS)
    assert not {name: count for name, count in counts.items() if count != 1}


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    process = Forked()
    yield process
    process.close()


@pytest.fixture(scope="session")
def known(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Objects of the unchanged sources."""
    folder = run_folder(pytestconfig, tmp_path_factory) / "known"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def child_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, known: Path, forked: Forked
) -> Iterator[Callable[[PlantedBug], subprocess.CompletedProcess[str]]]:
    """The finished child process of a bug; all that this test run needs are built two at a time.

    A process of pytest-xdist gets one bug after the other, and builds each when it is asked for.
    """

    def run(bug: PlantedBug) -> subprocess.CompletedProcess[str]:
        return run_copy(bug, tmp_path_factory.mktemp("planted"), known, forked)

    if hasattr(request.config, "workerinput"):
        yield run
        return
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    asked = list(dict.fromkeys(item.callspec.params["bug"] for item in items))
    if sanitizer_runtimes() is None:
        asked = [bug for bug in asked if not bug.sanitize]
    with ThreadPoolExecutor(2) as pool:
        running = {bug: pool.submit(run, bug) for bug in asked}
        yield lambda bug: running[bug].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(child_of, bug):
    if bug.sanitize and sanitizer_runtimes() is None:
        pytest.skip("this compiler comes without AddressSanitizer")
    child = child_of(bug)
    assert child.returncode == (SANITIZER_EXIT if bug.sanitize else TESTS_FAILED), child.stdout
    assert re.search(bug.report, child.stdout), child.stdout


@pytest.mark.parametrize("bug", SOUND, ids=lambda bug: bug.name)
def test_without_a_bug_the_same_tests_pass(child_of, bug):
    child = child_of(bug)
    assert child.returncode == 0, child.stdout
    assert re.search(r"^\d+ passed", child.stdout, re.MULTILINE), child.stdout
