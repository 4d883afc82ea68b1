"""torchvision's result at the sizes of a ResNet, with TF32 off and on."""

from contextlib import contextmanager

import pytest
import torch
from helpers.gpu import NEEDS_GPU, STAGES, deform_run, errors, layer_arguments, torchvision_run

pytest.importorskip("torchvision")
pytestmark = NEEDS_GPU


@contextmanager
def tf32(allowed):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_float32(stage, channels_last):
    arguments = layer_arguments(STAGES[stage], 2, torch.float32, "cuda", channels_last)
    with tf32(False):
        off_by = errors(deform_run(arguments), torchvision_run(arguments))
    assert max(off_by.values()) < 1e-5, off_by


@pytest.mark.parametrize("stage", STAGES)
def test_tf32_is_followed_and_costs_no_more_than_torchvisions(stage):
    """Off means float32; on, the error is of TF32's size and at most twice torchvision's."""
    arguments = layer_arguments(STAGES[stage], 2, torch.float32, "cuda")
    with tf32(False):
        exact = torchvision_run(arguments)
    with tf32(True):
        ours, torchvisions = errors(deform_run(arguments), exact), errors(torchvision_run(arguments), exact)
    for name, error in ours.items():
        assert error <= 2 * torchvisions[name] + 1e-5, f"{name}: {error:.3g}, torchvision's {torchvisions[name]:.3g}"
    if torch.cuda.get_device_capability() >= (8, 0):
        assert ours["output"] > 1e-5, "allow_tf32 has changed nothing"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stage", STAGES)
def test_16_bit_is_torchvisions_float32_rounded(stage, dtype):
    """On the same numbers; of the largest value, two units of the dtype for rounding operands, columns and result."""
    arguments = layer_arguments(STAGES[stage], 2, dtype, "cuda")
    with tf32(False):
        exact = torchvision_run({name: value.float() for name, value in arguments.items()})
    off_by = errors(deform_run(arguments), exact)
    assert max(off_by.values()) < 2 * torch.finfo(dtype).eps, off_by
