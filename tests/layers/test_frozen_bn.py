"""FrozenBatchNorm2d: values, dtypes, the buffers as they are at the call, state dicts, conversion."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from resnet_cuda import ops, resnet_fpn_backbone
from resnet_cuda.layers import Conv2d, FrozenBatchNorm2d, conv_norm_act

BUFFERS = ["weight", "bias", "running_mean", "running_var"]


def randomised(channels=5, eps=1e-5):
    layer = FrozenBatchNorm2d(channels, eps)
    for name in ("weight", "bias", "running_mean"):
        getattr(layer, name).normal_()
    layer.running_var.uniform_(0.1, 2)
    return layer


def definition(layer, x):
    """Batch normalisation in evaluation mode, in float64."""
    mean, variance, weight, bias = (
        getattr(layer, name).double()[:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x.double() - mean) / (variance + layer.eps).sqrt() * weight + bias


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-2])
def test_equals_batch_norm_in_evaluation_mode(eps, backend):
    layer, x, residual = randomised(eps=eps), torch.randn(2, 5, 4, 3), torch.randn(2, 5, 4, 3)
    expected = definition(layer, x)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-5)
    fused = layer(x, residual=residual, relu=True)
    torch.testing.assert_close(fused.double(), (expected + residual.double()).relu(), atol=1e-5, rtol=1e-5)
    assert layer(x, inplace=True) is x
    torch.testing.assert_close(x.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_activations_stay_so_and_constants_stay_float32(dtype, backend):
    layer, x = randomised(), torch.randn(1, 5, 3, 3).to(dtype)
    expected = definition(layer, x)
    layer = layer.to(dtype)
    assert {buffer.dtype for buffer in layer.buffers()} == {torch.float32}
    output = layer(x)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected.to(dtype), atol=0, rtol=2 * torch.finfo(dtype).eps)
    assert {buffer.dtype for buffer in layer.double().buffers()} == {torch.float64}


def set_data(layer):
    layer.weight.data = torch.full((5,), -2.0)


def in_inference_mode(layer):
    with torch.inference_mode():
        layer.bias.mul_(3)


WRITES = {
    "in place": lambda layer: layer.running_mean.add_(1),
    "load_state_dict": lambda layer: layer.load_state_dict(randomised().state_dict()),
    "replaced": lambda layer: setattr(layer, "weight", torch.full((5,), 3.0)),
    "through .data": lambda layer: layer.bias.data.fill_(7),
    "average of weights": lambda layer: layer.state_dict()["running_var"].data.mul_(4),
    "numpy view": lambda layer: layer.running_mean.numpy().__iadd__(2),
    "set .data": set_data,
    "storage": lambda layer: layer.bias.untyped_storage().copy_(torch.arange(5.0).untyped_storage()),
    "inference mode": in_inference_mode,
    "eps": lambda layer: setattr(layer, "eps", 0.5),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("gradient", [False, True], ids=["inference", "gradient"])
def test_every_call_uses_the_buffers_as_they_are(write, gradient, backend):
    """Most of these writes leave no trace that autograd or the module could see."""
    layer = randomised()
    x = torch.randn(1, 5, 3, 3, requires_grad=gradient)
    before = layer(x)
    write(layer)
    after = layer(x)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after.double(), definition(layer, x), atol=1e-5, rtol=1e-5)
    if gradient:
        (got,) = torch.autograd.grad(after.sum(), x)
        (expected,) = torch.autograd.grad(definition(layer, x).sum(), x)
        torch.testing.assert_close(got, expected)


def test_the_gradient_is_that_of_the_values_that_the_call_used(backend):
    layer, x = randomised(), torch.randn(1, 5, 3, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(layer(x).sum(), x)
    output = layer(x)
    for buffer in layer.buffers():
        buffer.data.add_(1)
    assert torch.equal(torch.autograd.grad(output.sum(), x)[0], expected)


@pytest.mark.parametrize("channels", [1, 5, 33, 64, 2053])
def test_fused_equals_the_operator_with_scale_and_shift(channels, memory_format, dtype, device, native):
    layer = randomised(channels).to(device)
    layer = layer.double() if dtype == torch.float64 else layer
    x, residual = torch.randn(2, 2, channels, 3, 5, device=device).to(dtype)
    x, residual = (it.contiguous(memory_format=memory_format).requires_grad_() for it in (x, residual))
    got = layer(x, residual, relu=True)
    expected = ops.frozen_bn_relu(x, *layer.scale_and_shift(), residual)
    assert got.stride() == expected.stride()
    tolerance = {"rtol": 8 * torch.finfo(dtype).eps, "atol": 8 * torch.finfo(dtype).eps}
    torch.testing.assert_close(got, expected, **tolerance)
    grad = torch.randn_like(got) * (expected != 0) * (got != 0)  # where rounding does not decide about the ReLU
    for one, right in zip(
        torch.autograd.grad(got, (x, residual), grad), torch.autograd.grad(expected, (x, residual), grad), strict=True
    ):
        torch.testing.assert_close(one, right, **tolerance)
    with torch.no_grad():
        assert torch.equal(layer(x.detach().clone(), residual.detach(), relu=True, inplace=True), got)


def test_a_dead_channel_at_eps_0_gives_its_bias(memory_format, device, backend):
    """Not 0/0 and not infinity, which would reach every later level; other channels keep every bit."""
    layer = randomised(eps=0.0).to(device)
    x = torch.randn(2, 5, 4, 3, device=device).contiguous(memory_format=memory_format).requires_grad_()
    healthy = layer(x)
    layer.running_var[2] = 0
    output = layer(x)
    assert output.isfinite().all()
    assert torch.equal(output[:, 2], layer.bias[2].expand_as(output[:, 2]))
    others = [0, 1, 3, 4]
    assert torch.equal(output[:, others], healthy[:, others])
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert gradient.isfinite().all()
    assert not gradient[:, 2].any()
    # The smallest variance that is not 0 keeps the published arithmetic.
    layer.running_var[2] = 1e-30
    torch.testing.assert_close(layer(x).double(), definition(layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BUFFERS)
def test_a_buffer_that_requires_a_gradient_is_refused(name, backend):
    """It would get none."""
    layer, x = randomised(), torch.randn(1, 5, 3, 3)
    getattr(layer, name).requires_grad_()
    for input in (x, x.clone().requires_grad_()):
        with pytest.raises(
            ValueError, match=rf"frozen_batch_norm: {name} is a tensor that requires a gradient; it must"
        ):
            layer(input)
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), definition(layer, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize(
    "value",
    [torch.zeros(4), torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64), torch.zeros(5, device="meta")],
    ids=str,
)
def test_a_bad_buffer_is_named(name, value, backend):
    layer = randomised()
    setattr(layer, name, value)
    with pytest.raises((ValueError, RuntimeError), match=rf"frozen_batch_norm: {name} is .*; it must be "):
        layer(torch.randn(1, 5, 3, 3))


def test_buffers_in_16_bit_work_as_they_are(backend):
    """As a wrapper leaves them that casts all buffers without Module.to."""
    layer, x = randomised(), torch.randn(1, 5, 3, 3).bfloat16()
    for name in BUFFERS:
        setattr(layer, name, getattr(layer, name).bfloat16())
    expected = definition(layer, x)
    torch.testing.assert_close(layer(x), expected.bfloat16(), atol=0, rtol=2**-7)


def test_copies_have_constants_of_their_own():
    layer, x = randomised(), torch.randn(1, 5, 3, 3)
    expected = layer(x)
    for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(clone(x), expected)
        clone.bias.add_(1)
        torch.testing.assert_close(clone(x), expected + 1)
        assert torch.equal(layer(x), expected)


def test_inference_mode_leaves_nothing_behind():
    layer, x = randomised(), torch.randn(1, 5, 3, 3, requires_grad=True)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert x.grad.any()


def test_state_dict_of_a_batch_norm_loads():
    trained = nn.BatchNorm2d(5)
    trained(torch.randn(8, 5, 4, 4))
    layer = FrozenBatchNorm2d(5)
    layer.load_state_dict(trained.state_dict())  # strict: num_batches_tracked must not be in the way
    assert list(layer.state_dict()) == BUFFERS
    x = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(layer(x), trained.eval()(x))


def test_convert_frozen_batchnorm_keeps_the_function():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3), nn.Sequential(nn.BatchNorm2d(4, affine=False))
    )
    network(torch.randn(4, 3, 5, 5))
    x = torch.randn(1, 3, 5, 5)
    expected = network.eval()(x)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(network)
    assert sum(isinstance(layer, FrozenBatchNorm2d) for layer in frozen.modules()) == 2
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in frozen.modules())
    torch.testing.assert_close(frozen.train()(x), expected)


def test_statistics_are_float32_in_a_model_built_in_16_bits():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.bfloat16)
        layer = FrozenBatchNorm2d(1)
        torch.set_default_dtype(torch.float64)
        assert FrozenBatchNorm2d(1).weight.dtype == torch.float64
    finally:
        torch.set_default_dtype(before)
    layer.running_mean.copy_(torch.tensor([100.3]))
    assert layer.running_mean.item() == torch.tensor(100.3).item()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)], ids=str)
def test_a_residual_of_another_dtype_promotes_as_in_torch(dtypes, relu, inplace, backend):
    layer = randomised()
    x, residual = (torch.randn(2, 5, 4, 3, dtype=dtype) for dtype in dtypes)
    expected = layer(x) + residual
    expected = expected.relu() if relu else expected
    assert expected.dtype == torch.float32
    found = layer(x.clone(), residual, relu=relu, inplace=inplace)
    assert torch.equal(found, expected)


def test_a_residual_of_another_dtype_and_shape_is_an_error(backend):
    with pytest.raises((RuntimeError, ValueError), match=r"frozen_batch_norm: residual is "):
        randomised()(torch.randn(2, 5, 4, 3), torch.randn(1, 5, 1, 1, dtype=torch.bfloat16))


def test_a_block_whose_convolution_gives_another_dtype(backend):
    """As FSDP's output_dtype makes it."""
    block = resnet_fpn_backbone("resnet18", width=8, fpn_channels=8).body.layer2[0].bfloat16()
    block.conv2.register_forward_hook(lambda _module, _arguments, output: output.float())
    assert block(torch.randn(1, 8, 8, 8, dtype=torch.bfloat16)).dtype == torch.float32


def test_another_call_of_a_norm_runs_in_a_fused_block():
    class Around(FrozenBatchNorm2d):
        def __call__(self, *inputs, **options):
            return super().__call__(*inputs, **options) * 2

    conv, norm, x = Conv2d(3, 4, 1), Around(4), torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(conv_norm_act(conv, norm, x), norm(conv(x)).relu())
