"""Ctrl-C, SIGTERM and SIGHUP while a command writes a file: nothing unfinished stays, and the process ends by them."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
import torch
from helpers.processes import run_python

from resnet_cuda._interrupts import Interrupted, end_by, interruptible

ALL = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
posix = pytest.mark.skipif(sys.platform == "win32", reason="a process that ends by a signal, as POSIX has it")

# Its arguments: signals to itself while it writes, and the command.
INTERRUPTED = """
import signal, sys
from resnet_cuda import __main__ as program
from resnet_cuda.export import onnx_file
from resnet_cuda.weights import files

# As at a terminal: nohup has had SIGHUP ignored, a shell SIGINT of what runs in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name, signal.SIGTERM), signal.SIG_DFL)

numbers = [int(it) for it in sys.argv.pop(1).split(",")]
def save(*arguments):
    path = next(it for it in arguments if isinstance(it, str))
    with open(path, "wb") as file:
        file.write(b"half")
    try:
        signal.raise_signal(numbers[0])
    finally:
        for number in numbers[1:]:
            signal.raise_signal(number)

files._save_torch = onnx_file._write = save
"""
AS_A_PROGRAM = "sys.exit(program.run())"
AS_A_FUNCTION = """
try:
    program.main(sys.argv[1:])
except KeyboardInterrupt as interrupt:
    print(interrupt.number, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""


def interrupted(code, folder, numbers, command="convert"):
    """Runs the command in the folder; it would replace ``out``, or write it anew."""
    torch.save({f"layer{it}.0.conv1.weight": torch.zeros(2, 2, 1, 1) for it in range(1, 5)}, folder / "in.pth")
    convert = ["convert", "in.pth", "out", "--to", "detectron2"]
    export = ["export", "--backbone", "resnet18", "--out", "out"]
    arguments = convert if command == "convert" else export
    path = os.pathsep.join(it for it in sys.path if it)
    done = run_python(
        "-c", INTERRUPTED + code, ",".join(map(str, map(int, numbers))), *arguments, cwd=folder, path=path
    )
    (folder / "in.pth").unlink()
    return done


@posix
@pytest.mark.parametrize("again", [[], [signal.SIGTERM, signal.SIGINT]], ids=["once", "again"])
@pytest.mark.parametrize("number", ALL)
def test_the_process_ends_by_the_signal_and_leaves_no_folder(tmp_path, number, again):
    (tmp_path / "out").write_bytes(b"before")
    done = interrupted(AS_A_PROGRAM, tmp_path, [number, *again])
    line = f"resnet_cuda: interrupted by {number.name}; out is whole, or as it was before\n"
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", line)
    assert (tmp_path / "out").read_bytes() == b"before" and os.listdir(tmp_path) == ["out"]


@posix
def test_so_does_an_export(tmp_path):
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    done = interrupted(AS_A_PROGRAM, tmp_path, [signal.SIGTERM], "export")
    line = "resnet_cuda: interrupted by SIGTERM; out is whole, or as it was before"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (-signal.SIGTERM, line)
    assert "Traceback" not in done.stderr and os.listdir(tmp_path) == []


@posix
@pytest.mark.parametrize("number", ALL)
def test_a_caller_of_main_lives_and_has_its_handlers_back(tmp_path, number):
    done = interrupted(AS_A_FUNCTION, tmp_path, [number])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{int(number)} True\n", "")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def handlers(monkeypatch):
    """Those that a process begins with."""
    before = {number: signal.getsignal(number) for number in ALL}
    for number in ALL:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    yield lambda: {number: signal.getsignal(number) for number in ALL}
    for number, handler in before.items():
        signal.signal(number, handler)


def test_handlers_are_as_before_after_the_block(handlers):
    before = handlers()
    with interruptible("x"):
        assert not set(handlers().values()) & set(before.values())
    assert handlers() == before
    with pytest.raises(ValueError, match="y"), interruptible("x"):
        raise ValueError("y")
    assert handlers() == before


def test_what_somebody_ignores_or_handles_stays_so(handlers):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, own := lambda number, frame: None)
    with interruptible("x"):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is own
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_other_threads_change_nothing(handlers):
    before, within = handlers(), []

    def work():
        with interruptible("x"):
            within.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert within == [before]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_counts_at_the_end(handlers):
    class Closing:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    reached = False
    with pytest.raises(Interrupted, match="interrupted by SIGTERM; x is whole"), interruptible("x"):
        Closing()
        reached = True
    assert reached


def test_where_no_signal_ends_a_process_the_status_is_a_shells(monkeypatch, capsys):
    monkeypatch.setattr(os, "name", "nt")
    assert end_by(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "resnet_cuda: interrupted by SIGINT\n"
