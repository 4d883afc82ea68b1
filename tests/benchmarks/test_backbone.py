"""Rows of the backbone: compile time and activation memory stand beside the times of a training step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks import bench_backbone
from benchmarks.compiling import first_call_seconds
from benchmarks.results import OURS, Settings

COMPILED = {f"{OURS}, torch.compile", "torchvision, torch.compile"}


@pytest.mark.parametrize("mode", [bench_backbone.INFERENCE, bench_backbone.TRAINING])
def test_a_row_has_both_compiled_candidates(mode, monkeypatch, native):
    pytest.importorskip("torchvision")
    monkeypatch.setattr(bench_backbone, "compiled", lambda model: model)  # which would take minutes
    monkeypatch.setattr(bench_backbone, "SIZES", {"64x128": (1, 3, 64, 128)})
    row = bench_backbone._row("64x128", mode, Settings(torch.device("cpu"), torch.float32, True, 1, 0.1, True))
    assert set(row.names) == {OURS, "torchvision", *COMPILED}
    for name, timing in row.timings.items():
        assert (timing.compile_seconds is not None) == (name in COMPILED)
        assert ("compile s" in row.cells(name)) == (name in COMPILED)
        if mode == bench_backbone.TRAINING:
            assert timing.stored_megabytes == row.timings[OURS].stored_megabytes > 1  # in float32
        else:
            assert timing.stored_megabytes is None


def test_the_first_call_finds_no_cache(monkeypatch):
    pytest.importorskip("torch._inductor.utils")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    seen = []

    def call():
        seen.append(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]))
        assert not list(seen[0].iterdir())

    assert first_call_seconds(call) > 0
    assert not seen[0].exists()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
