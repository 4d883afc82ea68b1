"""The fused gradient for the weight on the CPU, against float64 and beside the one from columns, its fallback."""

from __future__ import annotations

import pytest
import torch
from emulation.test_fused_forward import shifted
from helpers.cases import DeformCase
from helpers.compare import assert_bitwise_equal
from helpers.problems import deform_arguments, exact_arguments
from torch import Tensor

from resnet_cuda import reference

VARIABLE = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT"
KERNEL = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT_KERNEL"
MULTIPROCESSORS = "RESNET_CUDA_EMULATION_MULTIPROCESSORS"
CASES = (
    # 130 pixels per image: 3 steps. An image is a chunk, as its packed gradient is larger than half of the workspace.
    DeformCase("an_image_per_chunk", 2, 64, 128, (10, 13)),
    # Three images of 30 pixels, three, and one: steps across the images.
    DeformCase("three_images_per_chunk", 7, 64, 24, (5, 6)),
    DeformCase("v1_stride_2_odd_units", 1, 64, 24, (21, 24), stride=(2, 2), mask=False, bias=False),
    DeformCase("256_rows_some_empty", 1, 128, 136, (9, 11)),
    DeformCase("two_row_tiles", 1, 64, 264, (5, 6), kernel=(1, 2)),
    DeformCase("groups_2", 1, 128, 48, (9, 12), groups=2),
    DeformCase("groups_2_offset_groups_4", 1, 256, 32, (7, 9), groups=2, offset_groups=4, kernel=(2, 2)),
    DeformCase("groups_2_of_256_rows", 1, 128, 260, (5, 7), groups=2, kernel=(1, 1), padding=(0, 0)),
    DeformCase("offset_groups_2_25_taps", 1, 128, 16, (8, 9), kernel=(5, 5), padding=(2, 2), offset_groups=2),
    DeformCase("192_channels", 1, 192, 8, (8, 8), kernel=(1, 3), padding=(0, 1)),
    DeformCase("two_pixels_per_image", 70, 64, 8, (3, 4), padding=(0, 0), bias=False),
    DeformCase("odd_outputs", 1, 64, 13, (9, 7), kernel=(2, 2)),
    # More than twice as many steps as are planned at once: four, with 256 rows two, and eight by the uniform kernel.
    DeformCase("eleven_steps", 1, 64, 8, (27, 27), kernel=(1, 2), padding=(0, 0)),
    DeformCase("eighteen_steps", 1, 64, 8, (35, 33), kernel=(1, 1), padding=(0, 0)),
    DeformCase("six_steps_of_256_rows", 1, 64, 136, (19, 18), kernel=(1, 2), padding=(0, 0)),
    DeformCase("dilation", 1, 64, 8, (15, 4), padding=(2, 2), dilation=(2, 2), spread=9),
)
NAMED = {case.name: case for case in CASES}
NEEDS = {"input": 0, "weight": 1, "offset": 2, "mask": 3, "bias": 4}


def in_channels_last(arguments: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value is not None and value.dim() == 4 else value
        for name, value in arguments.items()
    }


def backward(emulated, case: DeformCase, arguments, *wanted: str) -> tuple[Tensor, ...]:
    """The gradients, in the operator's order; those not wanted are empty."""
    tensors = [arguments[name] for name in ("grad", "input", "weight", "offset", "mask")]
    geometry = (*case.stride, *case.padding, *case.dilation)
    return emulated.deform_conv2d_backward(*tensors, *geometry, *(name in wanted for name in NEEDS))


def weight_gradient(emulated, case: DeformCase, arguments) -> Tensor:
    return backward(emulated, case, arguments, "weight")[NEEDS["weight"]]


def exact_gradient(case: DeformCase, arguments) -> Tensor:
    """In float64."""
    doubles = {name: None if value is None else value.double() for name, value in arguments.items()}
    grad, weight = doubles.pop("grad"), doubles["weight"].requires_grad_()
    reference.deform_conv2d(**doubles, **case.geometry).backward(grad)
    return weight.grad


@pytest.fixture
def fused(emulated, monkeypatch):
    """``fused(case, arguments)``: the weight's gradient, which must come from the fused kernel."""

    def call(case, arguments):
        monkeypatch.setenv(VARIABLE, "require")
        gradient = weight_gradient(emulated, case, arguments)
        monkeypatch.delenv(VARIABLE)
        return gradient

    return call


def check(found: Tensor, columns: Tensor, exact: Tensor) -> None:
    assert found.shape == exact.shape and found.stride() == columns.stride() and found.dtype == columns.dtype
    assert not found.isnan().any(), "gradient for weight has NaN"
    own, others = ((one.double() - exact).square().mean().sqrt().item() for one in (found, columns))
    assert own <= 1.02 * others, f"gradient for weight is off by {own}, by columns {others}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(emulated, fused, case, dtype):
    arguments = in_channels_last(deform_arguments(case, dtype))
    check(fused(case, arguments), weight_gradient(emulated, case, arguments), exact_gradient(case, arguments))


# One block for all tiles; blocks that span tiles, and tiles of several blocks; as many blocks as steps.
@pytest.mark.parametrize(
    ("kernel", "multiprocessors"),
    [*(("roles", number) for number in (1, 3, 7, 1000)), *(("uniform", number) for number in (1, 1000))],
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_sums(fused, monkeypatch, case, kernel, multiprocessors):
    """Every sum is exact in float32, in any order, so that each one that is lost, or added twice, shows."""
    monkeypatch.setenv(MULTIPROCESSORS, str(multiprocessors))
    monkeypatch.setenv(KERNEL, kernel)
    arguments = in_channels_last(exact_arguments(case, torch.bfloat16))
    found, exact = fused(case, arguments), exact_gradient(case, arguments).bfloat16()
    assert not found.isnan().any(), "gradient for weight has NaN"
    differ = (found != exact).sum()
    off_by = (found.double() - exact.double()).abs().max().item()
    assert differ == 0, f"gradient for weight is off by {off_by}: {differ} of {found.numel()} differ"


@pytest.mark.parametrize("name", ["an_image_per_chunk", "256_rows_some_empty"])
def test_values_of_the_uniform_kernel(emulated, fused, monkeypatch, name):
    monkeypatch.setenv(KERNEL, "uniform")
    case = NAMED[name]
    arguments = in_channels_last(deform_arguments(case, torch.float16))
    check(fused(case, arguments), weight_gradient(emulated, case, arguments), exact_gradient(case, arguments))


def test_another_kernel_is_an_error(emulated, monkeypatch):
    case = NAMED["groups_2"]
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setenv(KERNEL, "both")
    with pytest.raises(RuntimeError, match=f"{KERNEL} is 'both'; it must be roles or uniform"):
        weight_gradient(emulated, case, in_channels_last(deform_arguments(case, torch.bfloat16)))


@pytest.mark.parametrize("kernel", ["roles", "uniform"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_same_bits_in_any_order_of_threads(fused, monkeypatch, dtype, kernel):
    monkeypatch.setenv(KERNEL, kernel)
    case = NAMED["256_rows_some_empty"]
    arguments = in_channels_last(deform_arguments(case, dtype))
    results = []
    for seed in range(3):
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
        results.append(fused(case, arguments))
    for result in results[1:]:
        assert_bitwise_equal(result, results[0], "gradient for weight")


def test_all_other_gradients_stay_the_same(emulated, monkeypatch):
    case = NAMED["three_images_per_chunk"]
    arguments = in_channels_last(deform_arguments(case, torch.bfloat16))
    expected = backward(emulated, case, arguments, *NEEDS)
    monkeypatch.setenv(VARIABLE, "require")
    found = backward(emulated, case, arguments, *NEEDS)
    for name, index in NEEDS.items():
        if name != "weight":
            assert_bitwise_equal(found[index], expected[index], f"gradient for {name}")
    assert_bitwise_equal(
        found[NEEDS["weight"]], weight_gradient(emulated, case, arguments), "gradient for weight, alone"
    )


@pytest.mark.parametrize("name", ["grad", "weight", "offset", "mask"])
def test_contiguous_tensors(fused, name):
    case = NAMED["three_images_per_chunk"]
    arguments = in_channels_last(deform_arguments(case, torch.bfloat16))
    expected = fused(case, arguments)
    assert_bitwise_equal(fused(case, arguments | {name: arguments[name].contiguous()}), expected, "gradient for weight")


def test_a_gradient_that_is_not_aligned(fused):
    case = NAMED["three_images_per_chunk"]
    arguments = in_channels_last(deform_arguments(case, torch.bfloat16))
    expected = fused(case, arguments)
    assert_bitwise_equal(fused(case, arguments | {"grad": shifted(arguments["grad"])}), expected, "gradient for weight")


def test_float32_positions(emulated, fused):
    case = NAMED["groups_2"]
    arguments = in_channels_last(deform_arguments(case, torch.bfloat16, position_dtype=torch.float32))
    check(fused(case, arguments), weight_gradient(emulated, case, arguments), exact_gradient(case, arguments))


def test_border_positions(emulated, fused):
    case = NAMED["an_image_per_chunk"]
    arguments = in_channels_last(deform_arguments(case, torch.bfloat16))
    arguments["offset"].zero_()
    check(fused(case, arguments), weight_gradient(emulated, case, arguments), exact_gradient(case, arguments))


def test_far_positions_and_nan(emulated, fused):
    case = NAMED["groups_2"]
    arguments = in_channels_last(deform_arguments(case, torch.bfloat16))
    for index, value in enumerate((float("inf"), float("-inf"), 1e30, -1e30)):
        arguments["offset"][0, index, 0, 0] = value
    arguments["offset"][0, 4, 2, 3] = float("nan")
    found, columns = fused(case, arguments), weight_gradient(emulated, case, arguments)
    assert torch.equal(found.isnan(), columns.isnan())
    assert found.isnan().nonzero()[:, [2, 3]].unique(dim=0).tolist() == [[0, 2]]


def test_no_images(emulated, monkeypatch):
    case = NAMED["groups_2"]
    arguments = in_channels_last(deform_arguments(case, torch.bfloat16))
    arguments |= {name: arguments[name][:0] for name in ("grad", "input", "offset", "mask")}
    monkeypatch.setenv(VARIABLE, "1")
    assert not weight_gradient(emulated, case, arguments).any()


UNFIT = {
    "float32": lambda a: {name: None if value is None else value.float() for name, value in a.items()},
    "contiguous": lambda a: a | {"input": a["input"].contiguous()},
    "input not aligned": lambda a: a | {"input": shifted(a["input"])},
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_runs_by_columns(emulated, monkeypatch, name):
    case = DeformCase("small", 1, 64, 8, (3, 4))
    check_fallback(emulated, monkeypatch, case, UNFIT[name](in_channels_last(deform_arguments(case, torch.bfloat16))))


@pytest.mark.parametrize(
    "case",
    [
        DeformCase("96_channels", 1, 96, 8, (3, 4)),
        DeformCase("32_channels_per_group", 1, 64, 16, (3, 4), groups=2),
        DeformCase("32_channels_per_offset_group", 1, 64, 8, (3, 4), offset_groups=2),
    ],
    ids=str,
)
def test_channels_that_do_not_fit(emulated, monkeypatch, case):
    check_fallback(emulated, monkeypatch, case, in_channels_last(deform_arguments(case, torch.bfloat16)))


def check_fallback(emulated, monkeypatch, case, arguments) -> None:
    expected = weight_gradient(emulated, case, arguments)
    monkeypatch.setenv(VARIABLE, "1")
    assert_bitwise_equal(weight_gradient(emulated, case, arguments), expected, "gradient for weight")
    monkeypatch.setenv(VARIABLE, "require")
    with pytest.raises(RuntimeError, match=f"{VARIABLE} is 'require'"):
        weight_gradient(emulated, case, arguments)


def test_another_value_of_the_variable_is_an_error(emulated, monkeypatch):
    case = DeformCase("small", 1, 64, 8, (3, 4))
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(RuntimeError, match=f"{VARIABLE} is 'yes'; it must be 0, 1 or require"):
        weight_gradient(emulated, case, in_channels_last(deform_arguments(case, torch.bfloat16)))
