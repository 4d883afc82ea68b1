"""What the programs print where the output's encoding lacks a character, and where the output takes no more."""

from __future__ import annotations

import io
import os
import sys

import pytest
import torch
from helpers.processes import run_python

from resnet_cuda._console import escape_what_cannot_be_printed, show


@pytest.mark.parametrize(("errors", "written"), [("strict", b"\\u732b \\udcff"), ("surrogateescape", None)])
def test_it_is_escaped_unless_the_output_has_a_way_of_its_own(errors, written, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors=errors)
    monkeypatch.setattr(sys, "stdout", output)
    escape_what_cannot_be_printed()
    assert output.errors == ("backslashreplace" if written else errors)
    if written:
        print("猫 \udcff", end="", flush=True)
        assert output.buffer.getvalue() == written


def test_an_output_that_is_no_file_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    escape_what_cannot_be_printed()
    print("猫")


def test_the_program_names_a_file_of_any_script(tmp_path):
    source = tmp_path / "猫.pth"
    torch.save({}, source)
    code = "import sys; from resnet_cuda.__main__ import main; print(sys.argv[1] if main(['info']) == 0 else '')"
    done = run_python("-c", code, source, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "\\u732b.pth" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["info", "convert", "--help"])
@pytest.mark.parametrize("output", ["a pipe that nobody reads", "/dev/full"])
def test_an_output_that_takes_no_more_is_no_traceback(tmp_path, output, command, unbuffered):
    arguments, done = [command], ""
    path = tmp_path / "out.pth"
    if command == "convert":
        torch.save({f"layer{it}.0.conv1.weight": torch.zeros(2, 2, 1, 1) for it in range(1, 5)}, tmp_path / "in.pth")
        arguments, done = [command, tmp_path / "in.pth", path, "--to", "detectron2"], f"{path} is written; "
    if output.startswith("/dev"):
        if not os.path.exists(output):
            pytest.skip(f"this system has no {output}")
        target = os.open(output, os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    ended = run_python("-m", "resnet_cuda", *arguments, stdout=target, PYTHONUNBUFFERED=unbuffered)
    os.close(target)
    if command == "--help" and unbuffered:  # argparse passes over the error itself
        assert not ended.stderr
        return
    full = f"resnet_cuda: {done}standard output cannot be written to: No space left on device\n"
    assert (ended.stderr, ended.returncode) == ("" if "pipe" in output else full, 1)
    assert path.exists() == (command == "convert")


def test_a_caller_keeps_its_output(monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    full = Full()
    monkeypatch.setattr(sys, "stdout", full)
    assert show("text", "it is written; ") == 1
    assert sys.stdout is full
    assert capsys.readouterr().err.startswith("resnet_cuda: it is written; standard output cannot be written to: ")
