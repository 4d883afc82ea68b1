"""The helpers of the GPU tests, on a CPU and on small shapes: they accept what is right and refuse what is wrong."""

import os
import select
import subprocess
import sys

import pytest
import torch
from helpers import gpu
from helpers.processes import PACKAGE, TESTS

from resnet_cuda import ops

pytestmark = pytest.mark.usefixtures("native")


def small_layer(batch=1, channels_last=True):
    return gpu.layer_arguments((8, 6, 7), batch, torch.float32, "cpu", channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_layer_equals_torchvisions(channels_last):
    pytest.importorskip("torchvision")
    arguments = small_layer(2, channels_last)
    off_by = gpu.errors(gpu.deform_run(arguments), gpu.torchvision_run(arguments))
    assert set(off_by) == {"output", "input", "offset", "weight", "bias", "mask"}
    assert max(off_by.values()) < 1e-5


def test_a_wrong_result_has_a_large_error():
    arguments = small_layer(2)
    wrong = gpu.deform_run(arguments | {"offset": arguments["offset"] + 1})
    assert max(gpu.errors(wrong, gpu.deform_run(arguments)).values()) > 0.1


def test_collapsed_offsets_meet_in_one_place():
    arguments = gpu.collapsed(small_layer())
    got = gpu.deform_run(arguments)
    reached = got.gradients["input"].abs().sum(dim=(0, 1)) > 0
    assert reached.sum() == 4  # between four pixels
    gpu.assert_runs_equal(gpu.deform_run(arguments), got)


def test_different_runs_are_not_equal():
    arguments = small_layer()
    expected = gpu.deform_run(arguments)
    arguments["grad"] = arguments["grad"] * 2
    with pytest.raises(AssertionError, match="input|offset|weight|bias|mask"):
        gpu.assert_runs_equal(gpu.deform_run(arguments), expected)


def test_the_block_is_a_layer_norm_and_relu():
    arguments = small_layer(2)
    residual = torch.ones_like(arguments["input"])
    got = gpu.block_run(arguments, residual)
    tensors = {name: value for name, value in arguments.items() if name != "grad"}
    torch.testing.assert_close(got.output, (ops.deform_conv2d(**tensors, **gpu.PADDED) + 1.25).relu())
    assert all(gradient.any() for gradient in got.gradients.values())


def test_the_check_of_large_norms_passes(memory_format):
    gpu.check_large_norm((3, 5, 9, 7), memory_format, "cpu")


def test_the_check_of_large_deformable_convolutions_passes():
    gpu.check_large_deform_conv(6, 24, (9, 11), "cpu")


def test_the_check_of_large_deformable_convolutions_sees_a_lost_image(monkeypatch):
    original = torch.ops.resnet_cuda.deform_conv2d

    def losing(input, *rest):
        output = original(input, *rest)
        output[4:].zero_()
        return output

    monkeypatch.setattr(torch.ops.resnet_cuda, "deform_conv2d", losing)
    with pytest.raises(AssertionError, match="output of image 4"):
        gpu.check_large_deform_conv(6, 24, (9, 11), "cpu")


HOLDS_THE_LOCK = """
import sys, time
from helpers.gpu import one_process_at_a_time
with one_process_at_a_time(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.readline()
    print("out", flush=True)
"""


def test_one_process_at_a_time(tmp_path):
    """The second comes in when the first has gone out, and at once where the first has died."""
    pytest.importorskip("fcntl")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": f"{TESTS}{os.pathsep}{PACKAGE.parent}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}

    def start():
        return subprocess.Popen([sys.executable, "-c", HOLDS_THE_LOCK, "memory"], **pipes)

    first = start()
    assert first.stdout.readline() == "in\n"
    second = start()
    try:
        assert select.select([second.stdout], [], [], 6)[0] == []
        first.kill()
        assert second.stdout.readline() == "in\n"
    finally:
        first.wait()
        second.communicate("\n", timeout=30)
