"""Two processes by torchrun: DDP and FSDP do what one process does, stop together and fail together."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch
from detection.training.engine import train
from detection.training.log import read_log
from ranks import ADAMW, SGD
from training_support import CPU, MODEL, coco, load, torchrun, write_coco

SCENARIOS = (
    "ddp",
    "ddp_accumulates",
    "fsdp",
    "fsdp_average",
    "fsdp_resumes",
    "fsdp_float16",
    "ddp_retinanet",
    "fsdp_retinanet",
    "signal_to_one",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All scenarios of ranks.py in one start of torchrun, and the same trainings by one process.

    Accumulating two batches of one image is what two processes do with one image each, down to the random numbers.
    """
    folder = tmp_path_factory.mktemp("parallel")
    write_coco(folder / "coco")
    data = coco(folder / "coco")
    train(data, MODEL, replace(SGD, accumulate=2), folder / "one", CPU)
    train(data, MODEL, replace(SGD, accumulate=4, iterations=3), folder / "one_accumulates", CPU)
    train(data, MODEL, replace(ADAMW, accumulate=2), folder / "one_average", CPU)
    train(data, MODEL, replace(ADAMW, accumulate=2, stop_after=3), folder / "one_half", CPU)
    done = torchrun("ranks.py", *SCENARIOS, folder, seconds=200)
    assert done.returncode == 0, done.stdout
    (folder / "output.txt").write_text(done.stdout)
    return folder


def assert_close(folder, actual: str, expected: str) -> None:
    """Weights, averages and losses, up to the order of sums."""
    checkpoints = [load(folder / name / "checkpoint.pt") for name in (actual, expected)]
    for part in ("model", "ema"):
        actual_part, expected_part = (it[part] or {} for it in checkpoints)
        assert actual_part.keys() == expected_part.keys()
        for name, value in expected_part.items():
            torch.testing.assert_close(actual_part[name], value, rtol=1e-4, atol=2e-5, msg=name)
    actual_log, expected_log = (
        [record for record in read_log(folder / name / "log.jsonl") if "validation" not in record]
        for name in (actual, expected)
    )
    assert len(actual_log) == len(expected_log) > 1
    for record, wanted in zip(actual_log, expected_log, strict=True):
        assert record["iteration"] == wanted["iteration"]
        for name in wanted:
            if "loss" in name or name in ("total", "gradient_norm", "learning_rate"):
                assert record[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize(
    ("several", "one"),
    [
        ("ddp", "one"),
        ("ddp_accumulates", "one_accumulates"),
        ("fsdp", "one"),
        ("fsdp_average", "one_average"),  # stopped after half, too
        ("one_half", "one_average"),  # begun by one process, ended by FSDP
        ("fsdp_retinanet", "ddp_retinanet"),
    ],
)
def test_two_processes_train_as_one(folder, several, one):
    assert_close(folder, several, one)


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "signal_to_one"])
def test_all_ranks_get_the_same_model(folder, scenario):
    """Frozen norms' statistics, which rank 0 measures, too."""
    first, second = json.loads((folder / f"{scenario}.json").read_text())["sums"]
    assert first == second
    assert any(value for name, value in first.items() if "running_mean" in name)


def test_one_process_resumes_what_fsdp_began(folder):
    train(coco(folder / "coco"), MODEL, replace(ADAMW, accumulate=2), folder / "fsdp_half", CPU)
    assert_close(folder, "fsdp_half", "one_average")


def test_fsdp_evaluates_the_whole_model(folder):
    records = [it for it in read_log(folder / "fsdp" / "log.jsonl") if "validation" in it]
    assert [it["iteration"] for it in records] == [3, 6]
    assert {"bbox", "segm"} == records[0]["validation"].keys()
    assert (folder / "fsdp" / "best.pt").exists()


def test_float16_under_fsdp_keeps_its_scale(folder):
    state = load(folder / "fsdp_float16" / "checkpoint.pt")
    assert state["scaler"]["scale"] > 0
    steps = {float(it.get("step", 0)) for it in state["optimizer"]["state"].values()}
    assert state["iteration"] == 3 and steps


def test_what_goes_on_otherwise_is_said(folder):
    output = (folder / "output.txt").read_text()
    assert "resumed at iteration 3" in output
    assert "goes on with 2 processes (it was 1)" in output
    assert "goes on with parallel 'fsdp' (it was 'ddp')" in output


def test_a_signal_to_one_rank_stops_all_at_one_iteration(folder):
    first, second = json.loads((folder / "signal_to_one.json").read_text())["messages"]
    assert first == second and first.startswith("stopped at iteration ")
    done = load(folder / "signal" / "checkpoint.pt")["iteration"]
    assert first == f"stopped at iteration {done} of 6; the same command goes on from there"
    assert 0 < done < 6


def test_a_rank_that_fails_ends_the_others_with_its_message(folder):
    started = time.monotonic()
    done = torchrun("ranks.py", "failure", folder, seconds=100)
    assert done.returncode != 0
    assert done.stdout.count("this image is bad") == 1
    assert "rank 1: this image is bad" in done.stdout
    assert "Connection closed" not in done.stdout
    assert time.monotonic() - started < 60
