"""``python -m benchmarks``: what an interrupted run leaves, and the files of a whole one."""

from __future__ import annotations

import json

import pytest

from benchmarks import __main__ as command
from benchmarks.activation_memory import Stored
from benchmarks.measure import Timing
from benchmarks.results import OURS, Row, StoredRow


def row(case):
    timings = {OURS: Timing(OURS, [2.0, 3.0, 4.0], 1.5), "peer": Timing("peer", [6.0], compile_seconds=12.34)}
    return Row("a part", case, timings, notes={"another": "not installed"})


def stored_row(case):
    own, peer = Stored({"stem": 0, "layer2": 2_000_000}, 1000), Stored({"stem": 5_000_000}, 0)
    return StoredRow("memory of a part", case, {OURS: own, "peer": peer}, {OURS: own, "peer": peer})


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``run(*cases)`` measures these and gives the rows of the file that is there afterwards."""

    def call(*cases, status=0):
        monkeypatch.setattr(command, "PARTS", {"part": lambda settings: iter(cases)})
        output = tmp_path / "results"
        try:
            assert command.main(["--allow-reference", "--device", "cpu", "--output", str(output)]) == status
        finally:
            call.rows = json.loads(output.with_suffix(".json").read_text())["rows"]
        return call.rows

    return call


def test_an_interrupted_run_leaves_the_rows_so_far(run, capsys):
    def interrupted():
        raise KeyboardInterrupt

    run(lambda: row("first"), lambda: row("second"), interrupted, lambda: row("never"), status=130)
    assert "stopped; the cases measured until then are in" in capsys.readouterr().err
    assert [it["case"] for it in run.rows] == ["first", "second"]
    assert run.rows[1]["candidates"][OURS]["median_ms"] == 3.0


def test_a_case_that_fails_leaves_the_rows_so_far(run):
    def failing():
        raise AssertionError("peer differs")

    with pytest.raises(AssertionError, match="peer differs"):
        run(lambda: row("first"), failing)
    assert [it["case"] for it in run.rows] == ["first"]


def test_table_and_file_of_times_and_memory(run, capsys, tmp_path):
    rows = run(lambda: row("times"), lambda: stored_row("bytes"))
    times, memory = (it["candidates"] for it in rows)
    assert times["peer"] == {
        "median_ms": 6.0,
        "min_ms": 6.0,
        "repeats": 1,
        "peak_mb": None,
        "compile_seconds": 12.3,
        "times_of_ours": 2.0,
    }
    assert memory["peer"]["stored_mb"] == 5.0
    assert memory["peer"]["times_of_ours"] == 2.5
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["case", "candidate", "ms", "x", "ours", "peak", "MB", "compile", "s"] in lines
    assert ["peer", "6.00", "2.00", "12.3"] in lines
    assert ["peer", "5.0", "2.50", "5.0", "2.50", "0.0"] in lines
    assert "without another: not installed" in [" ".join(line) for line in lines]


def test_plots_of_both_kinds_of_rows(run, tmp_path):
    pytest.importorskip("matplotlib")
    run(lambda: row("times"), lambda: stored_row("bytes"))
    assert sorted(it.name for it in tmp_path.glob("*.png")) == ["results-a-part.png", "results-memory-of-a-part.png"]
