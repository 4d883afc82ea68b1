"""The backward with the fused columns' gradient on the CPU, beside the one without, which is its fallback."""

from __future__ import annotations

import pytest
import torch
from emulation.autograd import deform_conv2d_of
from helpers.cases import DeformCase
from helpers.compare import assert_bitwise_equal
from helpers.problems import deform_arguments, run
from torch import Tensor

from resnet_cuda import reference

VARIABLE = "RESNET_CUDA_FUSED_COLUMN_GRADIENT"
WEIGHT = "RESNET_CUDA_FUSED_WEIGHT_GRADIENT"
CASES = (
    # The tests' workspace holds 17 pixels of 64 channels and nine taps: several chunks, of images or of rows.
    DeformCase("chunks_of_images", 5, 64, 24, (3, 2)),
    DeformCase("chunks_of_rows", 2, 64, 24, (6, 5)),
    DeformCase("v1_one_chunk", 2, 64, 72, (2, 4), kernel=(1, 1), padding=(0, 0), mask=False),
    DeformCase("groups_2_offset_groups_4", 2, 256, 16, (3, 4), groups=2, offset_groups=4, kernel=(1, 2)),
    DeformCase("more_slices_than_stages", 1, 64, 264, (4, 5), kernel=(1, 2)),
)
NAMED = {case.name: case for case in CASES}


def given(case: DeformCase, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor | None]:
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value is not None and value.dim() == 4 else value
        for name, value in deform_arguments(case, dtype).items()
    }


def gradients(emulated, case, arguments, wanted=None) -> dict[str, Tensor]:
    found = run(deform_conv2d_of(emulated), arguments, wanted, **case.geometry).gradients
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture
def both(emulated, monkeypatch):
    """``both(case, arguments)``: gradients with the fused kernel and without it."""

    def call(case, arguments):
        monkeypatch.setenv(VARIABLE, "require")
        fused = gradients(emulated, case, arguments)
        monkeypatch.delenv(VARIABLE)
        return fused, gradients(emulated, case, arguments)

    return call


def check(case, arguments, fused, plain) -> None:
    """Against float64 no further off than without the fused kernel."""
    doubles = {name: None if value is None else value.double() for name, value in arguments.items()}
    exact = run(reference.deform_conv2d, doubles, **case.geometry).gradients
    assert set(fused) == set(plain)
    for name, got in fused.items():
        assert got.dtype == plain[name].dtype and got.stride() == plain[name].stride()
        assert not got.isnan().any(), f"gradient for {name} has NaN"
        own, other = ((one.double() - exact[name]).square().mean().sqrt().item() for one in (got, plain[name]))
        assert own <= 1.02 * other, f"gradient for {name} is off by {own}, without the fused kernel by {other}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(both, case, dtype):
    arguments = given(case, dtype)
    check(case, arguments, *both(case, arguments))


def test_contiguous_layouts_and_float32_positions(both):
    case = NAMED["chunks_of_rows"]
    arguments = {name: value.contiguous() for name, value in given(case).items()}
    arguments |= {name: arguments[name].float() for name in ("offset", "mask")}
    check(case, arguments, *both(case, arguments))


@pytest.mark.parametrize(
    "wanted",
    [("input",), ("offset",), ("mask", "weight"), ("input", "weight", "bias"), ("weight",), ("bias",)],
    ids=str,
)
@pytest.mark.parametrize("name", ["chunks_of_images", "chunks_of_rows"])
def test_fewer_gradients_have_the_same_bits(emulated, monkeypatch, name, wanted):
    case = NAMED[name]
    arguments = given(case)
    monkeypatch.setenv(VARIABLE, "require")
    every = gradients(emulated, case, arguments)
    found = gradients(emulated, case, arguments, wanted)
    assert set(found) == set(wanted)
    for one, value in found.items():
        assert_bitwise_equal(value, every[one], one)


def test_the_same_bits_in_any_order_of_threads(emulated, monkeypatch):
    case = NAMED["chunks_of_rows"]
    arguments = given(case)
    monkeypatch.setenv(VARIABLE, "require")
    results = []
    for seed in range(3):
        monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
        results.append(gradients(emulated, case, arguments))
    for result in results[1:]:
        for name, value in result.items():
            assert_bitwise_equal(value, results[0][name], name)


@pytest.mark.parametrize("name", ["chunks_of_images", "groups_2_offset_groups_4"])
def test_beside_the_fused_gradient_for_the_weight(emulated, monkeypatch, name):
    """Both at once give the bits of each."""
    case = NAMED[name]
    arguments = given(case)
    monkeypatch.setenv(VARIABLE, "require")
    columns = gradients(emulated, case, arguments)
    monkeypatch.setenv(WEIGHT, "require")
    both = gradients(emulated, case, arguments)
    monkeypatch.delenv(VARIABLE)
    weight = gradients(emulated, case, arguments)
    for one, value in both.items():
        assert_bitwise_equal(value, (weight if one == "weight" else columns)[one], one)


def shifted(tensor: Tensor) -> Tensor:
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    return torch.as_strided(room, tensor.shape, tensor.stride(), 1).copy_(tensor)


SMALL = DeformCase("small", 1, 64, 8, (3, 4))
UNFIT = {
    "float32": (SMALL, lambda a: {name: None if value is None else value.float() for name, value in a.items()}),
    "input not aligned": (SMALL, lambda a: a | {"input": shifted(a["input"])}),
    "96 channels": (DeformCase("96_channels", 1, 96, 8, (3, 4)), dict),
    "32 channels per group": (DeformCase("32_per_group", 1, 64, 16, (3, 4), groups=2), dict),
    "32 channels per offset group": (DeformCase("32_per_offset_group", 1, 64, 8, (3, 4), offset_groups=2), dict),
    "513 output channels": (DeformCase("513_outputs", 1, 64, 513, (2, 2), kernel=(1, 1), padding=(0, 0)), dict),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_runs_without_it(emulated, monkeypatch, name):
    case, change = UNFIT[name]
    arguments = change(given(case))
    expected = gradients(emulated, case, arguments)
    monkeypatch.setenv(VARIABLE, "1")
    for one, value in gradients(emulated, case, arguments).items():
        assert_bitwise_equal(value, expected[one], one)
    monkeypatch.setenv(VARIABLE, "require")
    with pytest.raises(RuntimeError, match=f"{VARIABLE} is 'require'"):
        gradients(emulated, case, arguments)
    # Nothing that the kernel would compute is asked for: no error.
    for one, value in gradients(emulated, case, arguments, ("weight", "bias")).items():
        assert_bitwise_equal(value, expected[one], one)


def test_another_value_of_the_variable_is_an_error(emulated, monkeypatch):
    monkeypatch.setenv(VARIABLE, "yes")
    with pytest.raises(RuntimeError, match=f"{VARIABLE} is 'yes'; it must be 0, 1 or require"):
        gradients(emulated, SMALL, given(SMALL))
