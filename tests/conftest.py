"""Devices, dtypes, backends and the seed for every test. No test data lives here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# For libgomp, which reads it when torch is loaded: threads that wait leave the core to the other processes. Otherwise
# they turn in circles for milliseconds, and with more threads than cores most of the time goes into that.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

# The helpers are no installed package; this makes `import helpers` work whatever import mode pytest runs in.
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("helpers.compare", "helpers.problems", "helpers.weight_files")

from helpers import distribution  # noqa: E402

import resnet_cuda  # noqa: E402
from resnet_cuda import _backend, _extension  # noqa: E402

ALLOW_REFERENCE = os.environ.get("RESNET_CUDA_TEST_ALLOW_REFERENCE") == "1"

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MEMORY_FORMATS = (torch.contiguous_format, torch.channels_last)


def share_cores() -> None:
    """Under pytest-xdist each process takes its part of the cores, but two threads at least: they are tested, too."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        torch.set_num_threads(max(2, (os.cpu_count() or 1) // processes))


def pytest_configure(config: pytest.Config) -> None:
    share_cores()
    config.addinivalue_line("markers", "cuda: needs a CUDA GPU; collected everywhere, skipped where there is none")
    config.addinivalue_line("markers", "slow: `make quick` leaves it out, see helpers/distribution.py")
    config.addinivalue_line("markers", "reference: runs no compiled operator, so is the same with any build")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if distribution.needs_no_import(collection_path, config) else None


@pytest.hookimpl(tryfirst=True)  # before pytest's -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    distribution.mark(items)
    if hasattr(config, "workerinput"):  # a process of pytest-xdist
        distribution.order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return distribution.scheduler(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA GPU that torch can use")


def pytest_report_header() -> str:
    return (
        f"resnet_cuda: {Path(resnet_cuda.__file__).parent}, torch {torch.__version__}, "
        f"CPU extension {'loaded' if _extension.CPU_LOADED else 'MISSING'}, "
        f"CUDA extension {'loaded' if _extension.CUDA_LOADED else 'not loaded'}"
    )


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _same_backend_afterwards() -> Iterator[None]:
    """A test that chooses a backend and fails must not choose it for the tests behind it."""
    before = _backend._choice
    yield
    _backend._choice = before


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def without_module(value: object) -> str:
    return str(value).removeprefix("torch.")


@pytest.fixture(params=DTYPES, ids=without_module)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=MEMORY_FORMATS, ids=without_module)
def memory_format(request: pytest.FixtureRequest) -> torch.memory_format:
    return request.param


def _choose_native() -> None:
    """Fails where the extension is not built: a suite that quietly tests the reference with itself proves nothing."""
    if _extension.CPU_LOADED:
        resnet_cuda.use_backend("native")
    elif ALLOW_REFERENCE:
        resnet_cuda.use_backend("reference")
    else:
        pytest.fail(
            f"the compiled extension is not loaded ({_extension.CPU_ERROR}); build it, or set "
            "RESNET_CUDA_TEST_ALLOW_REFERENCE=1 to run these tests on the reference",
            pytrace=False,
        )


@pytest.fixture
def native() -> None:
    """The test runs on the compiled operators."""
    _choose_native()


@pytest.fixture
def registered() -> None:
    """The test calls ``torch.ops.resnet_cuda`` itself, for which there is no reference to fall back on."""
    if not _extension.CPU_LOADED and ALLOW_REFERENCE:
        pytest.skip("the compiled extension is not built and RESNET_CUDA_TEST_ALLOW_REFERENCE=1")
    _choose_native()


@pytest.fixture(params=("native", pytest.param("reference", marks=pytest.mark.reference)))
def backend(request: pytest.FixtureRequest) -> str:
    """The test runs on each implementation."""
    if request.param == "native":
        _choose_native()
    else:
        resnet_cuda.use_backend("reference")
    return request.param
