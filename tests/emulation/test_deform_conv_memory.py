"""Memory of the CUDA deformable convolution beyond arguments and results, counted where it is allocated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from emulation.build import WORKSPACE_BYTES
from helpers.cases import DeformCase
from helpers.problems import deform_arguments

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def allocated(call: Callable[[], object]) -> tuple[object, int]:
    """The result of ``call`` and the bytes of all tensors that it allocates, as if none were freed."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    made = [
        event.self_cpu_memory_usage
        for event in profile.events()
        if event.name in ("aten::empty", "aten::empty_strided")
    ]
    assert made and min(made) >= 0
    return result, sum(made)


CASES = (
    DeformCase("batch_1", batch=1, channels=8, out_channels=4, size=(12, 7), bias=False),
    DeformCase("batch_9", batch=9, channels=8, out_channels=4, size=(12, 7), bias=False),
    DeformCase("small_images", batch=50, channels=4, out_channels=4, size=(3, 2), bias=False),
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_has_a_bound_whatever_the_batch(emulated, case, dtype, layout):
    arguments = {
        name: None if value is None else value.contiguous(memory_format=LAYOUTS[layout])
        for name, value in deform_arguments(case, dtype).items()
    }
    geometry = (*case.stride, *case.padding, *case.dilation)
    tensors = [arguments[name] for name in ("input", "weight", "offset", "mask")]
    output, used = allocated(lambda: emulated.deform_conv2d(*tensors, None, *geometry))
    assert output.nbytes < used <= output.nbytes + WORKSPACE_BYTES

    gradients, used = allocated(
        lambda: emulated.deform_conv2d_backward(arguments["grad"], *tensors, *geometry, *[True] * 5)
    )
    results = sum(gradient.nbytes for gradient in gradients)
    # What is a gradient in float32 before it gets its own dtype and layout: the weight's.
    weight = 2 * arguments["weight"].numel() * 4
    assert results < used <= results + weight + WORKSPACE_BYTES
