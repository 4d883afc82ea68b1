"""Random small configurations, seeded: native against the reference in float64, values and all gradients."""

import random

import pytest
import torch
from helpers.cases import DeformCase
from helpers.layouts import channels_last, transposed
from helpers.problems import assert_deform_run_close, deform_arguments, run

from resnet_cuda.ops import deform_conv2d

CONFIGURATIONS = 200
PER_TEST = 20


def divisors(number):
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def random_case(seed):
    """A valid convolution of up to 3 images of 2x2 to 12x12 pixels; offsets reach past all borders."""
    rng = random.Random(seed)
    while True:
        channels = rng.randint(1, 24)
        groups = rng.choice(divisors(channels))
        case = DeformCase(
            f"seed_{seed}",
            batch=rng.randint(1, 3),
            channels=channels,
            out_channels=groups * rng.randint(1, 20 // groups + 1),
            size=(rng.randint(2, 12), rng.randint(2, 12)),
            kernel=(rng.randint(1, 5), rng.randint(1, 5)),
            stride=(rng.randint(1, 3), rng.randint(1, 3)),
            padding=(rng.randint(0, 3), rng.randint(0, 3)),
            dilation=(rng.randint(1, 3), rng.randint(1, 3)),
            groups=groups,
            offset_groups=rng.choice(divisors(channels)),
            mask=rng.random() < 0.7,
            bias=rng.random() < 0.5,
            spread=rng.randint(1, 4),
        )
        # With fewer taps than these all of them may land outside, and the comparison refuses to compare zeros.
        if min(case.out_size) >= 1 and case.batch * case.out_size[0] * case.out_size[1] * case.kernel[0] >= 12:
            return case


def random_layout(tensor, rng):
    if tensor is None or tensor.dim() != 4 or rng.random() < 0.6:
        return tensor
    return channels_last(tensor) if rng.random() < 0.5 else transposed(tensor)


@pytest.mark.parametrize("first", range(0, CONFIGURATIONS, PER_TEST))
def test_random_configurations_equal_the_reference(first, device, native):
    for seed in range(first, first + PER_TEST):
        case = random_case(seed)
        rng = random.Random(seed)
        dtype = rng.choice((torch.float64, torch.float32, torch.float32, torch.float16, torch.bfloat16))
        position_dtype = torch.float32 if dtype.itemsize == 2 and rng.random() < 0.5 else dtype
        arguments = deform_arguments(case, dtype, device, position_dtype, seed)
        arguments = {name: random_layout(value, rng) for name, value in arguments.items()}
        try:
            assert_deform_run_close(run(deform_conv2d, arguments, **case.geometry), arguments, case)
        except AssertionError as error:
            raise AssertionError(f"{case!r}, {dtype}, positions in {position_dtype}: {error}") from error
