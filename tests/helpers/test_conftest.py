"""What conftest.py does for pytest-xdist."""

import importlib.util
import os

import pytest
import torch
from helpers.processes import TESTS


@pytest.fixture
def conftest(monkeypatch):
    spec = importlib.util.spec_from_file_location("root_conftest", TESTS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    before = torch.get_num_threads()
    yield module
    torch.set_num_threads(before)


@pytest.mark.parametrize(("processes", "threads"), [("4", 4), ("6", 2), ("40", 2)])
def test_test_processes_share_the_cores(processes, threads, conftest, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", processes)
    conftest.share_cores()
    assert torch.get_num_threads() == threads


def test_a_test_process_alone_keeps_its_threads(conftest, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    conftest.share_cores()
    assert torch.get_num_threads() == before
