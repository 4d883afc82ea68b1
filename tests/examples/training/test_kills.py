"""A training that is killed at 20 random moments, and started again each time, has the bits of one that never was."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from detection.training.log import read_log
from training_support import FOLDER, assert_same_bits, environment, load

NOT_OF_THE_COURSE = ("images_per_second", "seconds", "memory_mb")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the two trainings, ``whole`` and ``killed``, and what was counted."""
    folder = tmp_path_factory.mktemp("kills")
    command = [sys.executable, FOLDER / "killed.py", folder]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_killed_at_20_moments_also_while_saving(runs):
    _, counts = runs
    assert counts["kills"] == 20, counts
    assert counts["statuses"] == [0, 0]
    assert counts["while_saving"] >= 1  # of about 5


@pytest.mark.parametrize("name", ["checkpoint.pt", "best.pt"])
def test_the_bits_are_those_of_an_uninterrupted_run(runs, name):
    """Weights, their average, the optimizer, the best AP, the samples used up."""
    folder, _ = runs
    killed, whole = load(folder / "killed" / name), load(folder / "whole" / name)
    assert_same_bits(killed, whole)
    if name == "checkpoint.pt":
        assert whole["iteration"] == 240 and len(whole["optimizer"]["state"]) > 50


def test_the_log_has_each_iteration_once(runs):
    folder, _ = runs
    killed, whole = (_course(read_log(folder / name / "log.jsonl")) for name in ("killed", "whole"))
    trained = [record["iteration"] for record in killed if "validation" not in record]
    assert trained == list(range(1, 241))
    assert killed == whole
    rows = (folder / "killed" / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["iteration", *map(str, trained)]


def _course(records: list[dict]) -> list[dict]:
    return [{name: it for name, it in record.items() if name not in NOT_OF_THE_COURSE} for record in records]
