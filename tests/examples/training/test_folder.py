"""A run's folder: one training at a time, an earlier run's files put aside whole, options.yaml."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from detection.training import folder as run_folder
from detection.training.engine import train
from detection.training.folder import locked, put_aside
from detection.training.log import read_log
from detection.training.options import TrainOptions
from training_support import CPU, FOLDER, MODEL, OPTIONS, coco, environment, load, write_coco

GN = replace(MODEL, norm="gn")
SHORT = replace(OPTIONS, stop_after=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_coco(folder / "coco")
    return coco(folder / "coco")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", "tensorboard"}


def test_a_folder_in_use_is_refused_until_the_process_is_gone(data, tmp_path):
    """Workers that outlive their parent's kill for some seconds do not hold it."""
    write_coco(tmp_path / "coco")
    process = subprocess.Popen(
        [sys.executable, FOLDER / "ctrl_c.py", tmp_path], env=environment(), start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(read_log(tmp_path / "run" / "log.jsonl")) < 2 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        with pytest.raises(ValueError) as refused:
            train(data, GN, replace(SHORT, resume=False), tmp_path / "run", CPU)
        assert str(refused.value) == f"{tmp_path / 'run'} is in use by another training (process {process.pid})"
        assert not (tmp_path / "run" / "before-1").exists()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        train(data, GN, replace(SHORT, resume=False), tmp_path / "run", CPU)
    finally:
        if process.poll() is None:
            process.kill()
    assert [record["iteration"] for record in read_log(tmp_path / "run" / "log.jsonl")] == [1]


def test_a_file_system_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        def lockf(self, *_):
            raise OSError("no locks available")

    monkeypatch.setattr(run_folder, "fcntl", NoLocks())
    with locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_without_resume_the_earlier_run_moves_as_a_whole(data, tmp_path, capsys):
    run = tmp_path / "run"
    train(data, GN, replace(OPTIONS, iterations=2, evaluate_every=2), run, CPU, validation=data)
    files = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != ".lock"}
    assert len(files) == 6
    capsys.readouterr()
    train(data, GN, replace(SHORT, resume=False), run, CPU)
    assert f"the files of an earlier run in {run} are now in {run / 'before-1'}" in capsys.readouterr().out.splitlines()
    assert {name: (run / "before-1" / name).read_bytes() for name in names(run / "before-1")} == files
    assert not (run / "best.pt").exists() and load(run / "checkpoint.pt")["iteration"] == 1
    train(data, GN, replace(SHORT, resume=False), run, CPU)
    assert load(run / "before-2" / "checkpoint.pt")["iteration"] == 1


def test_a_run_that_fails_at_its_first_step_leaves_nothing_to_resume(data, tmp_path):
    """Its log beside the earlier checkpoint would be resumed as one run."""
    run = tmp_path / "run"
    train(data, GN, replace(OPTIONS, iterations=2), run, CPU)
    with pytest.raises(ValueError, match="the loss of iteration"):
        train(data, GN, replace(OPTIONS, resume=False, learning_rate=1e30, warmup=0, iterations=10), run, CPU)
    assert not (run / "checkpoint.pt").exists()
    assert load(run / "before-1" / "checkpoint.pt")["iteration"] == 2
    assert [record["iteration"] for record in read_log(run / "before-1" / "log.jsonl")] == [1, 2]


def test_a_run_that_cannot_begin_moves_nothing(data, tmp_path):
    run = tmp_path / "run"
    train(data, GN, SHORT, run, CPU)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and path.name != ".lock"}
    with pytest.raises((OSError, ValueError)):
        train(data, GN, replace(SHORT, resume=False), run, CPU, weights=str(tmp_path / "none.pt"))
    assert {name: (run / name).read_bytes() for name in names(run)} == before


def test_what_a_kill_leaves_in_the_middle_of_moving_goes_along_the_next_time(tmp_path, monkeypatch):
    for name in ("checkpoint.pt", "best.pt", "log.jsonl", "log.csv", "options.yaml", "curves.png"):
        (tmp_path / name).write_text(name)
    replaced, moves = Path.replace, []

    def killed(path, target):
        moves.append(path.name)
        if len(moves) == 3:
            raise KeyboardInterrupt
        return replaced(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        put_aside(tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists() and (tmp_path / "options.yaml").exists()
    monkeypatch.undo()
    assert put_aside(tmp_path) == tmp_path / "before-1"
    assert len(names(tmp_path / "before-1")) == 6 and names(tmp_path) == {"before-1"}


def test_what_has_no_result_is_not_kept(tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    (tmp_path / "options.yaml").write_text("")
    assert put_aside(tmp_path) is None and names(tmp_path) == {"log.jsonl", "options.yaml"}


def test_options_yaml_has_the_data_and_not_how_the_run_was_started(data, tmp_path):
    notes = {"images": tmp_path / "images", "damaged": "skip", "val_images": None}
    options = replace(OPTIONS, iterations=30, warmup=None, stop_after=0, resume=False)
    train(data, GN, options, tmp_path / "run", CPU, notes=notes)
    content = yaml.safe_load((tmp_path / "run" / "options.yaml").read_text())
    assert content["data"] == {"images": str(tmp_path / "images"), "damaged": "skip"}
    assert not {"resume", "stop_after"} & content["train"].keys()
    assert TrainOptions.from_dict(content["train"]) == replace(OPTIONS, iterations=30, warmup=3)


def test_the_warm_up_is_resolved_once(data, tmp_path):
    run, options = tmp_path / "run", replace(OPTIONS, iterations=30, warmup=None)
    train(data, GN, replace(options, stop_after=0), run, CPU)
    train(data, GN, replace(options, stop_after=0, iterations=90), run, CPU)
    assert load(run / "checkpoint.pt")["train_options"]["warmup"] == 3
    with pytest.raises(ValueError, match="warmup is 9, and there 3"):
        train(data, GN, replace(options, warmup=9), run, CPU)


@pytest.mark.parametrize(("resume", "command"), [(True, ""), (False, " without --no-resume")])
def test_the_end_of_a_part_is_said(data, tmp_path, capsys, resume, command):
    train(data, GN, replace(SHORT, resume=resume, warmup=6), tmp_path, CPU)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"stopped at iteration 1 of 6 (--stop-after); the same command{command} goes on from there"
    assert [line for line in lines if line.startswith("warning: warmup is 6, of 6 iterations in all")] != []
    train(data, GN, replace(OPTIONS, warmup=6), tmp_path, CPU)
    assert "stopped" not in capsys.readouterr().out
