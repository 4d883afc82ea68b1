"""The code of docs/deployment.md runs, block after block, with a small network in the place of ResNet-50.

The blocks' marks are those of :mod:`helpers.pages`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch._inductor
from helpers.pages import DOCS, blocks_of, why_missing
from helpers.tiny_networks import tiny

import resnet_cuda

PAGE = DOCS / "deployment.md"
COMMANDS = re.compile(r"^python -m resnet_cuda (export .*)$", re.MULTILINE)


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
    for block in blocks_of(PAGE):
        if why_missing(block.needs) is None and (block.needs != "openvino" or Path("backbone.onnx").exists()):
            torch._dynamo.reset()
            block.run(space, PAGE.name)
            ran.append(block.needs)
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
