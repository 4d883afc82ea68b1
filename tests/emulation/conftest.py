"""Builds and loads the emulated CUDA operators once per test run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory):
    """``torch.ops.resnet_cuda_emulated``: the CUDA sources, compiled for the CPU."""
    spec = importlib.util.spec_from_file_location("emulated_build", Path(__file__).with_name("build.py"))
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    torch.ops.load_library(str(build.build_operators(tmp_path_factory.mktemp("emulated"))))
    return torch.ops.resnet_cuda_emulated
