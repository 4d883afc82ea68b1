"""Ctrl-C and SIGTERM: saved, one line, and the same command goes on; a second one ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from detection.data.coco_dataset import CocoInstances
from detection.training import validation
from detection.training.engine import train
from detection.training.interrupts import Interrupted, Interrupts
from detection.training.log import read_log
from training_support import CPU, FOLDER, MODEL, OPTIONS, assert_same_bits, coco, environment, load, write_coco

GN = replace(MODEL, norm="gn")  # without norms that are calibrated, which reads images, too


class Signals(CocoInstances):
    """Sends this process ``signals`` while image number ``at`` is read."""

    count, at, signals = 0, 5, (signal.SIGINT,)

    def read(self, index: int):
        self.count += 1
        if self.count == self.at:
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().read(index)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, number):
    write_coco(tmp_path / "coco")
    train(coco(tmp_path / "coco"), GN, OPTIONS, tmp_path / "whole", CPU)
    handlers = [signal.getsignal(it) for it in (signal.SIGINT, signal.SIGTERM)]
    dataset = coco(tmp_path / "coco", Signals)
    dataset.signals = (number,)
    with pytest.raises(Interrupted) as stopped:
        train(dataset, GN, OPTIONS, tmp_path / "pieces", CPU)
    done = load(tmp_path / "pieces" / "checkpoint.pt")["iteration"]
    assert done == 3  # whose batch image 5 is of
    assert str(stopped.value) == f"stopped at iteration {done} of 6; the same command goes on from there"
    assert [signal.getsignal(it) for it in (signal.SIGINT, signal.SIGTERM)] == handlers
    train(dataset, GN, OPTIONS, tmp_path / "pieces", CPU)
    pieces, whole = (load(tmp_path / name / "checkpoint.pt") for name in ("pieces", "whole"))
    assert pieces["iteration"] == 6 and pieces["samples"] == whole["samples"]
    assert [it["iteration"] for it in read_log(tmp_path / "pieces" / "log.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_without_resume_the_line_says_so(tmp_path):
    write_coco(tmp_path / "coco")
    with pytest.raises(Interrupted, match="the same command without --no-resume goes on from there"):
        train(coco(tmp_path / "coco", Signals), GN, replace(OPTIONS, resume=False), tmp_path / "run", CPU)


def test_an_evaluation_is_left_at_once_and_done_in_the_next_run(tmp_path, monkeypatch):
    write_coco(tmp_path / "coco")
    data, options, evaluations = coco(tmp_path / "coco"), replace(OPTIONS, evaluate_every=4), []
    evaluate = validation.evaluate

    def interrupted(*arguments, **options):
        evaluations.append(None)
        if len(evaluations) == 1:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)
            except Exception:  # as a user's data set may catch
                pytest.fail("the interruption is an Exception")
        return evaluate(*arguments, **options)

    monkeypatch.setattr(validation, "evaluate", interrupted)
    with pytest.raises(Interrupted, match="stopped at iteration 4 of 6"):
        train(data, GN, options, tmp_path / "run", CPU, validation=data)
    train(data, GN, options, tmp_path / "run", CPU, validation=data)
    records = read_log(tmp_path / "run" / "log.jsonl")
    assert [(it["iteration"], "validation" in it) for it in records] == [
        (1, False), (2, False), (3, False), (4, False), (4, True), (5, False), (6, False), (6, True)
    ]  # fmt: skip


@pytest.fixture
def interruptible():
    """A shell starts its background processes with SIGINT ignored, and Python leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_ends_at_once():
    with Interrupts(announce=False) as interrupts, pytest.raises(KeyboardInterrupt) as ended:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # torchrun's copy of the first
        assert interrupts.requested
        time.sleep(0.7)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        pytest.fail("still running")
    assert not isinstance(ended.value, Interrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_workers_too_saves_as_well(tmp_path, number):
    """As a terminal's Ctrl-C and torchrun's SIGTERM: they must go on for the last iteration."""
    write_coco(tmp_path / "coco")
    process = subprocess.Popen(
        [sys.executable, FOLDER / "ctrl_c.py", tmp_path],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(read_log(tmp_path / "run" / "log.jsonl")) < 3 and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130, output
    done = load(tmp_path / "run" / "checkpoint.pt")["iteration"]
    assert output.splitlines()[-1] == f"stopped at iteration {done} of 100000; the same command goes on from there"
    assert "Traceback" not in output
    assert [it["iteration"] for it in read_log(tmp_path / "run" / "log.jsonl")] == list(range(1, done + 1))


def test_in_another_thread_nothing_is_changed():
    import threading

    handlers = []

    def enter():
        with Interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]
    assert_same_bits(signal.getsignal(signal.SIGINT) is before, True)
