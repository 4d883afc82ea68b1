"""FrozenBatchNorm's CUDA kernels, emulated, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from helpers.cases import NormCase
from helpers.compare import assert_bitwise_equal
from helpers.norm_problems import assert_norm_run_close, norm_arguments
from helpers.problems import Run
from torch import Tensor

from resnet_cuda import reference

FORMATS = (torch.contiguous_format, torch.channels_last)
# 16 bytes are 2, 4 or 8 elements: channels, planes and whole tensors that are multiples of that, and that are not.
SHAPES = (
    (7, 1, 1, 1),
    (2, 1, 3, 5),
    (3, 5, 1, 1),
    (2, 5, 3, 5),
    (2, 7, 3, 5),
    (3, 7, 2, 2),  # several planes in a pack
    (2, 8, 3, 5),
    (1, 16, 4, 8),
    (2, 64, 5, 7),
    (1, 17, 25, 42),
    (1, 264, 3, 3),
)
# More packs than threads on one multiprocessor, so that threads take several, in one round or more; in the last more
# channels than threads.
LARGE_SHAPES = ((1, 64, 16, 30), (1, 2048, 7, 7), (2, 33, 37, 29), (1, 2053, 5, 5))


def with_format(arguments: dict[str, Tensor | None], memory_format: torch.memory_format) -> dict[str, Tensor | None]:
    return {
        name: value.contiguous(memory_format=memory_format) if value is not None and value.dim() == 4 else value
        for name, value in arguments.items()
    }


def make(shape, dtype, memory_format, residual=True, relu=True, exact=False):
    case = NormCase("emulated", shape, residual=residual, relu=relu)
    return case, with_format(norm_arguments(case, dtype, exact=exact), memory_format)


def forward(emulated, arguments, relu: bool, inplace: bool = False) -> Tensor:
    tensors = [arguments[name] for name in ("input", "scale", "shift", "residual")]
    if not inplace:
        return emulated.frozen_bn_relu(*tensors, relu)
    tensors[0] = shifted(tensors[0], tensors[0].storage_offset())
    emulated.frozen_bn_relu_(*tensors, relu)
    return tensors[0]


def run(emulated, arguments, relu: bool) -> Run:
    output = forward(emulated, arguments, relu)
    with_residual = arguments["residual"] is not None
    grad_input, grad_residual = emulated.frozen_bn_relu_backward(
        arguments["grad"], arguments["scale"], output if relu else None, True, with_residual
    )
    assert grad_input.stride() == output.stride()
    assert grad_residual.stride() == output.stride() if with_residual else grad_residual.shape == (0,)
    return Run(output, {"input": grad_input, "residual": grad_residual if with_residual else None})


def shifted(tensor: Tensor, elements: int) -> Tensor:
    """A copy in the same layout that begins ``elements`` after an aligned address, with NaN all around."""
    storage = torch.full((tensor.numel() + elements + 16,), float("nan"), dtype=tensor.dtype)
    assert storage.data_ptr() % 16 == 0
    return storage.as_strided(tensor.shape, tensor.stride(), elements).copy_(tensor)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["affine", "relu"])
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(emulated, shape, residual, relu, dtype, memory_format):
    case, arguments = make(shape, dtype, memory_format, residual, relu)
    got = run(emulated, arguments, relu)
    assert_norm_run_close(got, arguments, case, memory_format=memory_format)
    assert_bitwise_equal(forward(emulated, arguments, relu, inplace=True), got.output, "in place")


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("shape", LARGE_SHAPES, ids=str)
def test_threads_with_many_packs(emulated, shape, residual, dtype, memory_format, monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", "1")
    case, arguments = make(shape, dtype, memory_format, residual)
    got = run(emulated, arguments, True)
    assert_norm_run_close(got, arguments, case, memory_format=memory_format)
    assert_bitwise_equal(forward(emulated, arguments, True, inplace=True), got.output, "in place")


# Packs on one multiprocessor: 1 to 4, as many as are in flight, for each of the 1024 threads of a wave; in 4 rounds of
# 2 to 4, as many as one wave takes.
@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("packs", [1024 * each for each in (1, 2, 3, 4, 8, 12, 16)])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
def test_packs_at_each_border(emulated, packs, step, residual, dtype, memory_format, monkeypatch):
    """Just below, at and just above what changes the number of packs that a thread takes, or of blocks."""
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", "1")
    shape = (1, 16 // dtype.itemsize, 1, packs + step)  # a pack per column
    case, arguments = make(shape, dtype, memory_format, residual)
    got = run(emulated, arguments, True)
    assert_norm_run_close(got, arguments, case, memory_format=memory_format)
    assert_bitwise_equal(forward(emulated, arguments, True, inplace=True), got.output, "in place")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_exact_on_small_fractions_in_any_order(emulated, dtype, memory_format, seed, monkeypatch):
    """Nothing is rounded but the result, so not a bit may differ; many values are exactly 0 before the ReLU."""
    monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
    _, arguments = make((2, 9, 7, 11), dtype, memory_format, exact=True)
    input, residual = (arguments[name].clone().requires_grad_() for name in ("input", "residual"))
    expected = reference.frozen_bn_relu(input, arguments["scale"], arguments["shift"], residual)
    expected.backward(arguments["grad"])
    assert (expected == 0).any()
    got = run(emulated, arguments, True)
    assert_bitwise_equal(got.output, expected.detach(), "output")
    assert_bitwise_equal(got.gradients["input"], input.grad, "gradient for input")
    assert_bitwise_equal(got.gradients["residual"], residual.grad, "gradient for residual")


@pytest.mark.parametrize("which", ["input", "residual", "grad", "scale", "shift", "all"])
@pytest.mark.parametrize("elements", [1, 2, 4])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_a_view_may_begin_anywhere(emulated, which, elements, dtype, memory_format):
    """Bit for bit the result of aligned tensors; an access that is not aligned would be an error."""
    _, arguments = make((2, 8, 5, 7), dtype, memory_format)
    expected = run(emulated, arguments, True)
    moved = {name: shifted(value, elements) if which in (name, "all") else value for name, value in arguments.items()}
    got = run(emulated, moved, True)
    assert_bitwise_equal(got.output, expected.output, "output")
    for name, gradient in expected.gradients.items():
        assert_bitwise_equal(got.gradients[name], gradient, f"gradient for {name}")
    in_place = forward(emulated, moved, True, inplace=True)
    assert_bitwise_equal(in_place, expected.output, "in place")
    around = in_place.as_strided((in_place.untyped_storage().nbytes() // in_place.element_size(),), (1,), 0)
    assert around.isnan().sum() == around.numel() - in_place.numel(), "written outside the view"


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_the_saved_output_may_begin_anywhere(emulated, dtype, memory_format):
    _, arguments = make((2, 8, 5, 7), dtype, memory_format)
    output = forward(emulated, arguments, True)
    call = emulated.frozen_bn_relu_backward
    expected = call(arguments["grad"], arguments["scale"], output, True, True)
    got = call(arguments["grad"], arguments["scale"], shifted(output, 1), True, True)
    for one, right, name in zip(got, expected, ("input", "residual"), strict=True):
        assert_bitwise_equal(one, right, f"gradient for {name}")


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)], ids=str)
@pytest.mark.parametrize("relu", [False, True], ids=["affine", "relu"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_only_the_wanted_gradients(emulated, wanted, relu, memory_format):
    _, arguments = make((2, 7, 3, 5), torch.float16, memory_format)
    output = forward(emulated, arguments, relu) if relu else None
    everything = emulated.frozen_bn_relu_backward(arguments["grad"], arguments["scale"], output, True, True)
    got = emulated.frozen_bn_relu_backward(arguments["grad"], arguments["scale"], output, *wanted)
    for one, right, needed in zip(got, everything, wanted, strict=True):
        if needed:
            assert_bitwise_equal(one, right, "gradient")
        else:
            assert one.shape == (0,)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_nan_and_infinity(emulated, dtype, memory_format):
    """A NaN stays one through the ReLU, and lets the gradient pass as any value that is not at most 0 does."""
    nan, infinity = float("nan"), float("inf")
    row = torch.tensor([nan, infinity, -infinity, 1.0, -1.0, nan, 2.0, 0.0, -0.0], dtype=dtype)
    input = row.repeat(2 * 3 * 11).reshape(2, 3, 9, 11).contiguous(memory_format=memory_format)
    constants = torch.ones(3), torch.zeros(3)
    right = torch.where(input <= 0, torch.zeros_like(input), input)
    output = emulated.frozen_bn_relu(input, *constants, None, True)
    assert_bitwise_equal(output, right, "output")
    assert_bitwise_equal(emulated.frozen_bn_relu(input, *constants, None, False), input, "affine output")
    ones = torch.ones_like(input)
    for gradient in emulated.frozen_bn_relu_backward(ones, constants[0], output, True, True):
        assert_bitwise_equal(gradient, torch.where(input <= 0, 0 * ones, ones), "gradient")
    assert emulated.frozen_bn_relu(ones, *constants, nan * ones, True).isnan().all()


@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_the_residual_is_the_input_or_overlaps_it(emulated, offset, dtype, memory_format):
    """In place, an element of the residual is read before it is overwritten."""
    _, arguments = make((2, 5, 6, 7), dtype, memory_format)
    like = arguments["input"]
    memory = torch.randn(like.numel() + 3, dtype=torch.float64).to(dtype)
    input, residual = (memory.as_strided(like.shape, like.stride(), begin) for begin in (0, offset))
    constants = arguments["scale"], arguments["shift"]
    expected = emulated.frozen_bn_relu(input.clone(), *constants, residual.clone(), True)
    emulated.frozen_bn_relu_(input, *constants, residual, True)
    assert_bitwise_equal(input, expected, "in place")


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_nothing_but_the_result_is_written(emulated, dtype, memory_format):
    _, arguments = make((2, 5, 6, 7), dtype, memory_format)
    before = {name: value.clone() for name, value in arguments.items()}
    run(emulated, arguments, True)
    forward(emulated, arguments, True, inplace=True)
    for name, value in arguments.items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(0, 4, 5, 7), (2, 4, 0, 7), (2, 0, 5, 7)], ids=str)
def test_empty(emulated, shape, dtype, memory_format):
    input = torch.empty(shape, dtype=dtype).contiguous(memory_format=memory_format)
    constants = torch.ones(shape[1]), torch.zeros(shape[1])
    output = emulated.frozen_bn_relu(input, *constants, input.clone(), True)
    assert output.shape == shape
    emulated.frozen_bn_relu_(input, *constants, None, True)
    gradients = emulated.frozen_bn_relu_backward(input, constants[0], output, True, True)
    assert [gradient.shape for gradient in gradients] == [shape, shape]


def layer_buffers(arguments: dict[str, Tensor | None]) -> tuple[Tensor, ...]:
    """Weight, bias, mean and variance, none of them 0 or 1, in the dtype of the constants."""
    scale, shift = arguments["scale"], arguments["shift"]
    generator = torch.Generator().manual_seed(7)
    mean = torch.randn(scale.shape, generator=generator, dtype=torch.float64).to(scale.dtype)
    variance = (0.5 + torch.rand(scale.shape, generator=generator, dtype=torch.float64)).to(scale.dtype)
    return scale, shift, mean, variance


def layer_forward(emulated, input, buffers, residual, eps, inplace, need_scale=True):
    if not inplace:
        return emulated.frozen_batch_norm(input, *buffers, eps, residual, True, need_scale)
    input = shifted(input, input.storage_offset())
    return input, emulated.frozen_batch_norm_(input, *buffers, eps, residual, True, need_scale)


# One block of threads and a pack with more channels than threads; more packs than one multiprocessor's threads; a tail.
LAYER_SHAPES = (
    (1, 1, 1, 1),
    (2, 5, 3, 5),
    (3, 7, 2, 2),
    (2, 8, 3, 5),
    (1, 2053, 5, 5),
    (1, 64, 16, 30),
    (1, 2048, 1, 1),
)


@pytest.mark.parametrize("inplace", [False, True], ids=["out of place", "in place"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("shape", LAYER_SHAPES, ids=str)
def test_layer_values_from_its_buffers(emulated, shape, residual, dtype, memory_format, inplace, monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_EMULATION_MULTIPROCESSORS", "1")
    _, arguments = make(shape, dtype, memory_format, residual)
    buffers = layer_buffers(arguments)
    got, scale = layer_forward(emulated, arguments["input"], buffers, arguments["residual"], 1e-3, inplace)
    weight, bias, mean, variance = (it.double() for it in buffers)
    right_scale = weight / (variance + 1e-3).sqrt()
    tolerance = {"rtol": 1e-14, "atol": 1e-14} if dtype == torch.float64 else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(scale.double(), right_scale, msg=lambda text: f"the scale is off: {text}", **tolerance)
    expected = reference.frozen_bn_relu(
        arguments["input"].double(),
        right_scale,
        bias - mean * right_scale,
        None if arguments["residual"] is None else arguments["residual"].double(),
    )
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        got.double(), expected, rtol=eps, atol=32 * max(eps, 2.0**-23 if dtype != torch.float64 else 0)
    )
    assert got.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_layer_scale_unasked_is_empty_and_changes_nothing(emulated, dtype, memory_format):
    _, arguments = make((2, 8, 5, 7), dtype, memory_format)
    buffers = layer_buffers(arguments)
    with_scale, _ = layer_forward(emulated, arguments["input"], buffers, arguments["residual"], 0.0, False)
    without, scale = layer_forward(emulated, arguments["input"], buffers, arguments["residual"], 0.0, False, False)
    assert scale.shape == (0,)
    assert_bitwise_equal(without, with_scale, "output")


@pytest.mark.parametrize("which", [0, 1, 2, 3])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_layer_buffers_may_begin_anywhere(emulated, which, dtype, memory_format):
    _, arguments = make((2, 8, 5, 7), dtype, memory_format)
    buffers = list(layer_buffers(arguments))
    expected, scale = layer_forward(emulated, arguments["input"], buffers, arguments["residual"], 1e-5, False)
    buffers[which] = shifted(buffers[which], 1)
    got, moved_scale = layer_forward(emulated, arguments["input"], buffers, arguments["residual"], 1e-5, False)
    assert_bitwise_equal(got, expected, "output")
    assert_bitwise_equal(moved_scale, scale, "scale")


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_layer_channel_of_variance_0_at_eps_0_gives_its_bias(emulated, dtype, memory_format):
    _, arguments = make((2, 9, 4, 5), dtype, memory_format, residual=False)
    weight, bias, mean, variance = layer_buffers(arguments)
    variance[3] = 0
    got, scale = layer_forward(emulated, arguments["input"], (weight, bias, mean, variance), None, 0.0, False)
    assert scale[3] == 0
    assert scale.isfinite().all()
    assert_bitwise_equal(got[:, 3], bias[3].relu().to(dtype).expand_as(got[:, 3]), "a dead channel")
    assert got.isfinite().all()


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_layer_writes_nothing_but_its_result(emulated, dtype, memory_format):
    _, arguments = make((2, 5, 6, 7), dtype, memory_format)
    buffers = layer_buffers(arguments)
    before = [it.clone() for it in (arguments["input"], arguments["residual"], *buffers)]
    layer_forward(emulated, arguments["input"], buffers, arguments["residual"], 1e-5, False)
    for now, then in zip((arguments["input"], arguments["residual"], *buffers), before, strict=True):
        assert torch.equal(now, then)
