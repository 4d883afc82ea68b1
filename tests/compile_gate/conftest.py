"""The compile gate needs the checkout: the build's own modules are no part of the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if (ROOT / "build_native").is_dir():
    sys.path.insert(0, str(ROOT))
else:
    collect_ignore_glob = ["test_*.py"]  # a wheel alone is being tested

REQUIRED = os.environ.get("RESNET_CUDA_TEST_REQUIRE_GATE") == "1"


def _needed(check):
    """``check()``; where it lacks a tool a skip, or a failure with RESNET_CUDA_TEST_REQUIRE_GATE=1."""
    from compile_gate.tools import UnavailableError

    try:
        return check()
    except UnavailableError as error:
        reason = str(error)
    if REQUIRED:
        pytest.fail(f"RESNET_CUDA_TEST_REQUIRE_GATE=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def tools():
    from compile_gate.tools import find_tools

    return _needed(find_tools)


@pytest.fixture
def disassembler(tools) -> None:
    _needed(tools.require_disassembler)


@pytest.fixture
def known_architecture(tools, architecture: str) -> str:
    """The architecture of the test, where this nvcc compiles for it."""
    _needed(lambda: tools.require(architecture))
    return architecture


@pytest.fixture(scope="session")
def gate(tools, request: pytest.FixtureRequest) -> Iterator:
    """Compiles for the architectures of all the tests that are going to run, ahead of them."""
    from compile_gate.gate import Gate
    from compile_gate.tools import code_name

    chosen = [getattr(item, "callspec", None) for item in request.session.items if "gate" in item.fixturenames]
    architectures = dict.fromkeys(spec.params["architecture"] for spec in chosen if spec)
    gate = Gate(tools, [it for it in architectures if code_name(it) in tools.known_codes])
    yield gate
    gate.close()


@pytest.fixture
def kernels(gate, known_architecture: str):
    """All kernels for one architecture."""
    return gate.kernels(known_architecture)
