"""A tensor on another device is refused by a sentence that names both devices, as torch prints them."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    from build_native import native

    root = Path(torch.__file__).parent
    library = tmp_path_factory.mktemp("texts") / "texts.so"
    command = [
        *(*shlex.split(os.environ.get("CXX", "g++")), "-std=c++17", "-O1", "-fPIC", "-shared", "-fvisibility=hidden"),
        *(*native.STABLE_ABI, f"-I{native.CSRC}", "-isystem", str(root / "include")),
        *(str(Path(__file__).with_name("device_texts.cpp")), "-L", str(root / "lib")),
        *("-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-o", str(library)),
    ]
    subprocess.run(command, check=True)
    torch.ops.load_library(str(library))
    return torch.ops.resnet_cuda_device_texts.check


def test_both_devices_are_named(check):
    here, nowhere = torch.zeros(1), torch.zeros(1, device="meta")
    check(here, here)
    for tensor, input in ((here, nowhere), (nowhere, here)):
        expected = f"^op: weight is on {tensor.device}; it must be on {input.device}, as input is"
        with pytest.raises(RuntimeError, match=expected):
            check(tensor, input)


@pytest.mark.cuda
def test_with_its_number(check):
    here, there = torch.zeros(1), torch.zeros(1, device="cuda:0")
    with pytest.raises(RuntimeError, match="^op: weight is on cuda:0; it must be on cpu, as input is"):
        check(there, here)
