"""Builds and loads the emulated CUDA operators once per test run; memory that a kernel must write starts as NaN."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # build_native is part of the checkout, not of the package

from emulation.libraries import find_library
from helpers.shared import run_folder


def _operators(name: str, namespace: str, folder: Path):
    torch.ops.load_library(str(find_library(name, folder)))
    return getattr(torch.ops, namespace)


@pytest.fixture(scope="session")
def libraries_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = run_folder(pytestconfig, tmp_path_factory) / "emulated"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def emulated(libraries_folder: Path):
    """``torch.ops.resnet_cuda_emulated``: the CUDA sources, compiled for the CPU."""
    return _operators("operators", "resnet_cuda_emulated", libraries_folder)


@pytest.fixture(scope="session")
def transpose(libraries_folder: Path):
    """The transposition of ``csrc/common/transpose.cuh``, emulated."""
    return _operators("transpose", "resnet_cuda_emulated_transpose", libraries_folder).transpose


@pytest.fixture(scope="session")
def tap_order(libraries_folder: Path):
    """The weight's reordering of ``csrc/deform_conv/cuda_tap_order.cuh``, emulated."""
    return _operators("tap_order", "resnet_cuda_emulated_tap_order", libraries_folder).reorder


@pytest.fixture(scope="session")
def packed_output_gradient(libraries_folder: Path):
    """The output's gradient, packed by ``csrc/deform_conv_fused/cuda_packed_output_gradient.cuh``, emulated."""
    return _operators("packed_output_gradient", "resnet_cuda_emulated_packed_output_gradient", libraries_folder).pack


@pytest.fixture(scope="session")
def index_operators(libraries_folder: Path):
    """Index arithmetic, and how the kernels' work is divided (``index_op.cpp``)."""
    return _operators("index", "resnet_cuda_emulated_index", libraries_folder)


@pytest.fixture(scope="session")
def lists_operators(libraries_folder: Path):
    """The input lists of the deformable convolution's backward, and its sizes."""
    return _operators("lists", "resnet_cuda_emulated_lists", libraries_folder)


@pytest.fixture(scope="session")
def column_gradient(libraries_folder: Path):
    """The fused columns' gradient of a chunk, emulated (``column_gradient_op.cpp``)."""
    return _operators("column_gradient", "resnet_cuda_emulated_column_gradient", libraries_folder).column_gradient


@pytest.fixture(scope="session")
def self_test(libraries_folder: Path):
    """Kernels that keep or break the rules that the emulation checks."""
    return _operators("self_test", "resnet_cuda_emulation_self_test", libraries_folder)


@pytest.fixture(autouse=True)
def _poisoned_allocations() -> Iterator[None]:
    """Every new tensor, results and workspace alike, is filled with NaN, or with the largest integer."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]
