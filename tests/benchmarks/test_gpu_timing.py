"""What is compared, and what it costs: cells, short blocks, the truth made once, nothing begun without time for it."""

import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")

from benchmarks import peers
from benchmarks.cases import layer
from benchmarks.gpu import backbones, deform_conv
from benchmarks.gpu.cells import CELLS, FLOAT32, Cell
from benchmarks.gpu.context import Context
from benchmarks.measure import Candidate, Effort, compare_blocks
from benchmarks.peers import PACKAGES
from benchmarks.peers.variants import VARIANTS, make_set
from benchmarks.records import Results, latest, read

CPU = torch.device("cpu")
CASE = layer("C4", 1, quick=True)
SET = make_set(CASE, CPU)


@pytest.mark.parametrize(("milliseconds", "most"), [(0.1, 20), (7, 4), (100, 1)])
def test_a_block_takes_30_ms_or_one_call(milliseconds, most):
    """torchvision's backward takes 7 ms a call; twenty of them would be blocks of 150 ms."""
    candidate = Candidate("sleeps", [lambda: time.sleep(milliseconds / 1e3)])
    lines = [compare_blocks([candidate], CPU, Effort(rounds=2))["sleeps"] for _ in range(5)]
    for line in lines:
        assert 1 <= line["calls"] <= most
        assert line["rounds"] == 2 and line["wall_us"] > 1e3 * milliseconds
    # Where other processes have the cores a call takes longer, so a block has fewer, but not every time.
    assert max(line["calls"] for line in lines) >= most - 1 or milliseconds == 0.1


def context(tmp_path, seconds=100.0):
    return Context(CPU, True, Results(tmp_path / "results.jsonl", device="cpu"), "ours", "4", seconds)


def test_the_truth_is_made_once_per_shape_and_direction(tmp_path, monkeypatch):
    made, results = [], deform_conv.results
    monkeypatch.setattr(deform_conv, "results", lambda *arguments: made.append(1) or results(*arguments))
    where = context(tmp_path)
    for stage, pixels in (("C4", 2.0), ("C4", 0.0), ("C5", 2.0)):
        for direction in ("forward", "backward"):
            before = len(made)
            for candidates in (FLOAT32[:1], FLOAT32[::-1]):
                cell = Cell("deform_conv2d", stage, 2, direction, candidates, offset_pixels=pixels)
                deform_conv.measure(where, cell)
            assert len(made) == before + 1, cell
    assert where.failures == []
    assert len(read(tmp_path / "results.jsonl")) == 3 * 2 * 3


@pytest.mark.parametrize("value", [float("nan"), 2.0])
@pytest.mark.parametrize("index", range(4))
def test_a_wrong_gradient_is_not_timed(tmp_path, monkeypatch, index, value):
    """Neither is one that is NaN, whichever of the four it is."""
    gradients = deform_conv.candidate(FLOAT32[0], CASE, [SET], "backward").calls[0]()
    wrong = [one * value if index == number else one for number, one in enumerate(gradients)]
    made = Candidate(FLOAT32[0], [lambda: wrong])
    where = context(tmp_path)
    monkeypatch.setattr(deform_conv, "candidate", lambda *_: made)
    monkeypatch.setattr(deform_conv, "results", lambda *_: gradients)
    deform_conv.measure(where, Cell("deform_conv2d", "C4", 1, "backward", FLOAT32[:1]))
    assert len(where.failures) == 1 and "differs from float32" in where.failures[0]
    assert latest(read(tmp_path / "results.jsonl"), kind="time") is None


def test_the_table_of_cells_names_what_there_is():
    cells = [cell for step in CELLS.values() for cell in step]
    named = {name for cell in cells if cell.op == "deform_conv2d" for name in cell.candidates}
    assert named == set(VARIANTS)
    assert {name for cell in cells if cell.op == "backbone" for name in cell.candidates} == set(backbones.WAYS)
    for cells in CELLS.values():
        assert len(set(cells)) == len(cells)


def test_every_peer_is_registered():
    """A file of its own, and its package in PACKAGES."""
    files = {path.name.removesuffix("_peer.py") for path in Path(peers.__file__).parent.glob("*_peer.py")}
    assert files == set(PACKAGES)


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
