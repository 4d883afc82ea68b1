"""Builds and loads the emulated CUDA operators once per test run; nothing that a kernel must write starts as anything but NaN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from emulation.libraries import find_library


@pytest.fixture(scope="session")
def libraries_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture(scope="session")
def emulated(libraries_folder: Path):
    """``torch.ops.resnet_cuda_emulated``: the CUDA sources, compiled for the CPU."""
    torch.ops.load_library(str(find_library("operators", libraries_folder)))
    return torch.ops.resnet_cuda_emulated


@pytest.fixture(scope="session")
def transpose(libraries_folder: Path):
    """The transposition of ``csrc/common/transpose.cuh``, emulated."""
    torch.ops.load_library(str(find_library("transpose", libraries_folder)))
    return torch.ops.resnet_cuda_emulated_transpose.transpose


@pytest.fixture(scope="session")
def index_operators(libraries_folder: Path):
    """The index arithmetic of ``csrc/common/fast_division.h`` and of the FrozenBN kernels."""
    torch.ops.load_library(str(find_library("index", libraries_folder)))
    return torch.ops.resnet_cuda_emulated_index


@pytest.fixture(scope="session")
def self_test(libraries_folder: Path):
    """Kernels that keep or break the rules that the emulation checks."""
    torch.ops.load_library(str(find_library("self_test", libraries_folder)))
    return torch.ops.resnet_cuda_emulation_self_test


@pytest.fixture(autouse=True)
def _poisoned_allocations() -> Iterator[None]:
    """Every new tensor, results and workspace alike, is filled with NaN, or with the largest integer."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]
