"""The code of docs/deployment.md runs, block after block, with a small network in the place of ResNet-50.

A block ``python needs=NAME`` runs where that library is; ``compiler`` is a C++ compiler, ``cuda`` a GPU.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import torch
import torch._inductor
from helpers.tiny_networks import tiny

import resnet_cuda

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"
BLOCK = re.compile(r"^```python(?: needs=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^python -m resnet_cuda (export .*)$", re.MULTILINE)


def is_there(need: str) -> bool:
    if need in ("", "cuda"):
        return not need or torch.cuda.is_available()
    return shutil.which("g++") is not None if need == "compiler" else importlib.util.find_spec(need) is not None


@pytest.mark.filterwarnings("ignore")
def test_the_code_runs(tmp_path, monkeypatch, registered):
    compiler = torch.compile
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resnet_cuda, "resnet_fpn_backbone", lambda name, dcn_stages: tiny(stages=1))
    # Inductor and its packages, which would take a minute, are tested in test_compiled.py.
    monkeypatch.setattr(torch, "compile", lambda *given, **options: compiler(*given, **options, backend="aot_eager"))
    packages = {}
    monkeypatch.setattr(
        torch._inductor,
        "aoti_compile_and_package",
        lambda program, package_path: packages.update({package_path: program}),
    )
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: packages[path].module())
    space, ran = {}, []
    for need, code in BLOCK.findall(PAGE.read_text()):
        if is_there(need) and (need != "openvino" or Path("backbone.onnx").exists()):
            torch._dynamo.reset()
            exec(compile(code, PAGE.name, "exec"), space)
            ran.append(need)
    assert ran.count("") >= 3
    assert space["features"] is not None
    assert len(torch.jit.load("backbone.pt")(space["images"].cpu())) == 2


def test_the_commands_have_the_programs_options(monkeypatch):
    from resnet_cuda import __main__ as program

    seen = []
    monkeypatch.setattr(program, "run_export", lambda chosen: seen.append(chosen) or 0)
    commands = COMMANDS.findall(PAGE.read_text())
    assert all(program.main(command.split()) == 0 for command in commands)
    assert [(it.backbone, it.dcn, list(it.size)) for it in seen] == [
        (None, None, [480, 640]),
        ("resnet50", "0111", [800, 1344]),
    ]
