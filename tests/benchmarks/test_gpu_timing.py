"""What a comparison costs: short blocks, the truth once per shape, nothing begun that would not end in time."""

import time

import pytest
import torch

pytest.importorskip("torchvision")

from benchmarks.gpu import names, side_by_side, timing
from benchmarks.gpu.context import Context
from benchmarks.gpu.layers import layer
from benchmarks.gpu.records import Results, latest, read
from benchmarks.gpu.timing import Candidate, Effort

CPU = torch.device("cpu")


@pytest.mark.parametrize(("milliseconds", "most"), [(0.1, 20), (7, 4), (100, 1)])
def test_a_block_takes_30_ms_or_one_call(milliseconds, most):
    """torchvision's backward takes 7 ms a call; twenty of them would be blocks of 150 ms."""
    candidate = Candidate("sleeps", [lambda: time.sleep(milliseconds / 1e3)])
    times = timing.compare_in_turns([candidate], CPU, Effort(rounds=2))["sleeps"]
    assert 1 <= times.calls <= most
    assert times.calls == most or milliseconds == 0.1 or times.calls >= most - 1
    assert len(times.wall) == 2


def test_the_median_is_that_of_seven_rounds():
    assert (Effort().rounds, Effort().block_seconds) == (7, 0.03)


def context(tmp_path, seconds=100.0):
    return Context(CPU, True, Results(tmp_path / "results.jsonl", device="cpu"), "4", seconds)


def test_the_truth_is_made_once_per_shape(tmp_path, monkeypatch):
    made = []
    truth = side_by_side.truth
    monkeypatch.setattr(side_by_side, "truth", lambda *arguments: made.append(1) or truth(*arguments))
    side_by_side._TRUTHS.clear()
    where = context(tmp_path)
    for stage, pixels in (("C4", 2.0), ("C4", 0.0), ("C5", 2.0)):
        before = len(made)
        for direction in (names.FORWARD, names.BACKWARD):
            for wanted in ((names.OURS_FLOAT32,), (names.TORCHVISION_FLOAT32, names.OURS_FLOAT32)):
                lines = side_by_side.compare(where, layer(stage, 2, quick=True), direction, wanted, pixels)
                assert set(lines) == set(wanted)
        assert len(made) == before + 1, (stage, pixels)
    assert where.failures == []
    for stage in ("C3", "C4", "C5"):  # the oldest ones go
        side_by_side.truth_of(
            where, layer(stage, 1, True), 2.0, side_by_side.layers.make_sets(layer(stage, 1, True), CPU, 1)
        )
    assert len(side_by_side._TRUTHS) == side_by_side.TRUTHS_KEPT


def test_nothing_is_begun_that_takes_longer_than_is_left(tmp_path):
    """As long as the longest item so far, that is."""
    where = context(tmp_path, seconds=2.0)
    assert where.enough_time("first")
    time.sleep(1.0)
    assert not where.enough_time("second")
    assert latest(read(tmp_path / "results.jsonl"), kind="not measured")["item"] == "second"
    assert not where.enough_time("third", 1.5)
    fresh = context(tmp_path, seconds=2.0)
    assert fresh.enough_time("first")
    time.sleep(0.2)
    assert fresh.enough_time("second")
