"""What the programs print where the output's encoding lacks a character."""

from __future__ import annotations

import io
import sys

import pytest
from helpers.processes import run_python

from resnet_cuda._console import escape_what_cannot_be_printed


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
    import torch

    source = tmp_path / "猫.pth"
    torch.save({}, source)
    code = "import sys; from resnet_cuda.__main__ import main; print(sys.argv[1] if main(['info']) == 0 else '')"
    done = run_python("-c", code, source, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "\\u732b.pth" in done.stdout
