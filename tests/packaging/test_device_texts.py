"""A tensor on another device is refused by a sentence that names both devices, as torch prints them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.cpp_library import load_cpp


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    from build_native import native

    source = Path(__file__).with_name("device_texts.cpp")
    load_cpp(source, tmp_path_factory.mktemp("texts"), *native.STABLE_ABI, f"-I{native.CSRC}")
    return torch.ops.resnet_cuda_device_texts.check


def test_both_devices_are_named(check):
    here, nowhere = torch.zeros(1), torch.zeros(1, device="meta")
    check(here, here)
    for tensor, input in ((here, nowhere), (nowhere, here)):
        expected = f"^op: weight is on {tensor.device}; it must be on {input.device}, as input is"
        with pytest.raises(RuntimeError, match=expected):
            check(tensor, input)


@pytest.mark.cuda
def test_the_number_of_a_device_is_named(check):
    here, there = torch.zeros(1), torch.zeros(1, device="cuda:0")
    with pytest.raises(RuntimeError, match="^op: weight is on cuda:0; it must be on cpu, as input is"):
        check(there, here)
