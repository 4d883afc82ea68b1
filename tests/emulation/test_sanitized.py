"""The tests of this folder in a child process, on libraries with AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from emulation.build import HERE
from emulation.child import SANITIZER_EXIT, run_python, run_tests, sanitizer_runtimes
from emulation.libraries import build_library
from helpers.shared import made_once, run_folder

pytestmark = pytest.mark.skipif(sanitizer_runtimes() is None, reason="this compiler comes without AddressSanitizer")

BUILDING = {"test_sanitized.py", "test_planted_bugs.py", "test_launch_shapes.py", "test_ucontext.py"}
AGAIN = sorted({path.name for path in HERE.glob("test_*.py")} - BUILDING)
# What makes the same accesses as other tests of its file: the second 16-bit type, and calls that are repeated to
# compare their bits.
REPEATED = ["torch.float16", "any_order", "same_bits", "the_seed", "changes_no_bit", "beside_the_fused"]
REPEATED_IN = {"test_fused_forward.py": ["test_values"], "test_fused_weight_gradient.py": ["exact_sums"]}
REPORT = re.compile("AddressSanitizer|runtime error:")


LIBRARIES = (
    "operators",
    "column_gradient",
    "packed_output_gradient",
    "index",
    "lists",
    "self_test",
    "tap_order",
    "transpose",
)


def build_all(folder: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: build_library(name, folder, sanitize=True), LIBRARIES))


@pytest.fixture(scope="module")
def sanitized(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every library."""
    return made_once(run_folder(pytestconfig, tmp_path_factory) / "sanitized", build_all)


@pytest.mark.parametrize("name", AGAIN)
def test_again(sanitized, name):
    # In another order of threads and blocks than the tests' own process has.
    repeated = " or ".join(REPEATED + REPEATED_IN.get(name, []))
    options = ["-k", f"not ({repeated})"]
    child = run_tests([str(HERE / name), *options], sanitized, sanitize=True, RESNET_CUDA_EMULATION_SEED="1")
    assert child.returncode == 0, child.stdout
    assert not REPORT.search(child.stdout), child.stdout
    assert re.search(r"^\d+ passed(, \d+ deselected)? in ", child.stdout, re.MULTILINE), child.stdout


CALL = """
import sys, torch
torch.ops.load_library(sys.argv[1])
source = torch.arange(256.0)
kernels = torch.ops.resnet_cuda_emulation_self_test
print("begins", flush=True)
{call}
print("survived", flush=True)
"""


@pytest.mark.parametrize(
    "call, report",
    [
        ("kernels.copy_packs(source, 0)", None),
        ("kernels.copy_packs(source, 4)", "AddressSanitizer: heap-buffer-overflow"),
        ("kernels.shuffle(source, 0)", None),
        ("kernels.shuffle(source / 0, 0)", "runtime error: (nan|inf) is outside the range of representable values"),
    ],
)
def test_a_sanitizer_ends_the_process(sanitized, call, report):
    """A vector past the end of a tensor, and a NaN cast to an index."""
    child = run_python(["-c", CALL.format(call=call), str(sanitized / "self_test.so")], sanitized, sanitize=True)
    assert "begins" in child.stdout
    if report is None:
        assert child.returncode == 0, child.stdout
        assert "survived" in child.stdout
    else:
        assert child.returncode == SANITIZER_EXIT, child.stdout
        assert re.search(report, child.stdout), child.stdout
        assert "survived" not in child.stdout
