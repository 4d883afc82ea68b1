"""Where deformable convolution rounds: not at all where every step is exact, and in bfloat16 at most once more, the
sampled values, where the CPU multiplies pairs of bfloat16."""

import pytest
import torch
from helpers.cases import DEFORM_CASES, PAIR_CASES, DeformCase
from helpers.instruction_sets import LEVELS, run_at_level
from helpers.problems import assert_deform_run_exact, forward_arguments

from resnet_cuda import reference
from resnet_cuda.ops import deform_conv2d

pytestmark = pytest.mark.usefixtures("native")


@pytest.mark.parametrize("case", [*DEFORM_CASES, *PAIR_CASES], ids=str)
def test_exact_numbers_give_exact_results(case, dtype):
    """To the bit: a channel left out, counted twice or multiplied by a neighbour's weight cannot hide in a budget."""
    assert_deform_run_exact(deform_conv2d, case, dtype)


@pytest.mark.parametrize("case", PAIR_CASES, ids=str)
def test_exact_numbers_in_contiguous_tensors(case):
    assert_deform_run_exact(deform_conv2d, case, torch.bfloat16, torch.contiguous_format)


def test_exact_weight_gradient_alone(dtype):
    """A tile of 60 pixels before one of 55, whose last pixel has no partner but what the first tile left."""
    case = DeformCase("115_pixels", batch=1, size=(23, 5))
    assert_deform_run_exact(deform_conv2d, case, dtype, wanted=("weight",))


AT_LEVEL = """
import torch
from helpers.cases import PAIR_CASES
from helpers.problems import assert_deform_run_exact
from resnet_cuda import _extension, ops, use_backend

use_backend("native")
for case in PAIR_CASES:
    assert_deform_run_exact(ops.deform_conv2d, case, torch.bfloat16)
print(_extension.cpu_capability(), "exact")
"""


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_exact_numbers_at_every_level(level):
    assert run_at_level(level, AT_LEVEL) == "exact"


def columns_of(arguments: dict[str, torch.Tensor], geometry: dict[str, tuple[int, int]]) -> torch.Tensor:
    """The sampled values in float64, (N, C * kh * kw, Ho * Wo): the result for weights that pick one tap each."""
    channels, kernel = arguments["input"].shape[1], arguments["weight"].shape[2:]
    picks = torch.eye(kernel.numel(), dtype=torch.float64).view(-1, 1, *kernel).repeat(channels, 1, 1, 1)
    wide = {name: value.double() for name, value in arguments.items() if name not in ("weight", "bias")}
    return reference.deform_conv2d(weight=picks, **wide, **geometry).flatten(2)


@pytest.mark.parametrize(
    "case",
    [
        DeformCase("even", channels=128, out_channels=64, size=(16, 16), spread=2, bias=False),
        DeformCase("odd", channels=45, out_channels=33, size=(19, 15), spread=2, bias=False),
        DeformCase("v1", channels=64, out_channels=48, size=(16, 16), spread=2, bias=False, mask=False),
    ],
    ids=str,
)
def test_bfloat16_rounds_sampled_values_once_at_most(case):
    """No less accurate than columns that are sampled exactly, stored in bfloat16 and multiplied exactly."""
    arguments = forward_arguments(case, torch.bfloat16)
    arguments = {name: value for name, value in arguments.items() if value is not None}
    arguments["offset"] = arguments["offset"].float() + 0.01  # fractions that bfloat16 does not hold
    columns = columns_of(arguments, case.geometry)
    weight = arguments["weight"].double().flatten(1)
    got = deform_conv2d(**arguments, **case.geometry).flatten(2).double()
    truth = weight @ columns
    stored = (weight @ columns.bfloat16().double()).bfloat16().double()

    def error(values: torch.Tensor) -> float:
        return (values - truth).square().mean().sqrt().item()

    assert 0 < error(got) <= 1.01 * error(stored)


# A last channel without partner, multiplied with zeros: infinity times zero would be NaN.
ODD_CHANNELS = pytest.mark.parametrize("channels", [1, 31, 33, 65])


def positive_arguments(channels: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Numbers from 0.5 to 1.5 and positions between pixels."""
    generator = torch.Generator().manual_seed(0)
    return {
        "input": torch.rand(1, channels, 6, 6, generator=generator).add(0.5).to(dtype),
        "weight": torch.rand(5, channels, 1, 1, generator=generator).add(0.5).to(dtype),
        "offset": torch.full((1, 2, 6, 6), 0.5, dtype=dtype),
        "mask": torch.ones(1, 1, 6, 6, dtype=dtype),
    }


@ODD_CHANNELS
def test_an_infinite_mask_gives_infinity(channels, dtype):
    arguments = positive_arguments(channels, dtype)
    arguments["mask"][0, 0, 2, 3] = torch.inf
    got = deform_conv2d(**arguments)
    assert (got[0, :, 2, 3] == torch.inf).all()
    assert got.isfinite().sum() == got.numel() - 5


@ODD_CHANNELS
def test_an_infinite_weight_stays_in_its_output(channels, dtype):
    arguments = positive_arguments(channels, dtype)
    arguments["weight"][2] = torch.inf
    got = deform_conv2d(**arguments)
    assert (got[:, 2] == torch.inf).all()
    assert got[:, [0, 1, 3, 4]].isfinite().all()


@pytest.mark.parametrize("outputs", [1, 3, 33])
def test_an_infinite_gradient_stays_in_its_pixel(outputs, dtype):
    """Of an odd number of outputs, that many pixels and one more: each product of the backward has a last one."""
    arguments = positive_arguments(2, dtype)
    arguments["weight"] = torch.ones(outputs, 2, 1, 1, dtype=dtype)
    arguments = {name: value[..., :5, :5] if name in ("offset", "mask") else value for name, value in arguments.items()}
    arguments["input"] = arguments["input"][..., :5, :5].contiguous()
    leaves = {name: value.clone().requires_grad_() for name, value in arguments.items()}
    grad = torch.ones(1, outputs, 5, 5, dtype=dtype)
    grad[0, :, 4, 4] = torch.inf
    deform_conv2d(**leaves).backward(grad)
    assert leaves["input"].grad.isinf().sum() == 2
    assert leaves["input"].grad.isnan().sum() == 0
    assert leaves["weight"].grad.isinf().all()
