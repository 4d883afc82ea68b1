"""Meta and fake tensors: shape, dtype, device and strides as the real operators give them, without computing."""

from dataclasses import replace

import pytest
import torch
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME
from helpers.problems import deform_arguments
from torch._subclasses.fake_tensor import FakeTensorMode

from resnet_cuda import ops


def like(real, fake):
    assert fake.shape == real.shape
    assert fake.dtype == real.dtype
    assert real.numel() == 0 or fake.stride() == real.stride()


def laid_out(arguments, memory_format):
    return {
        key: value.contiguous(memory_format=memory_format) if value is not None and value.dim() == 4 else value
        for key, value in arguments.items()
        if key != "grad"
    }


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_deform_conv2d_on_meta(case, memory_format, backend):
    real = laid_out(deform_arguments(case, torch.float16), memory_format)
    meta = {key: None if value is None else value.to("meta") for key, value in real.items()}
    got = ops.deform_conv2d(**meta, **case.geometry)
    assert got.is_meta
    like(ops.deform_conv2d(**real, **case.geometry), got)


@pytest.mark.parametrize("name", ["plain", "one_pixel", "one_column", "channels_1_to_1"])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_strides_of_tensors_in_both_formats_at_once(name, batch, backend):
    """With one channel or one pixel a tensor is contiguous and channels_last; real and meta must call it the same."""
    case = replace(DEFORM_CASES_BY_NAME[name], batch=batch)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        real = laid_out(deform_arguments(case, torch.float32), memory_format)
        meta = {key: None if value is None else value.to("meta") for key, value in real.items()}
        like(ops.deform_conv2d(**real, **case.geometry), ops.deform_conv2d(**meta, **case.geometry))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_frozen_bn_relu_on_meta(memory_format, inplace, backend):
    real = torch.randn(2, 3, 4, 5, dtype=torch.bfloat16).contiguous(memory_format=memory_format)
    constants = torch.ones(3), torch.zeros(3)
    meta = real.to("meta")
    got = ops.frozen_bn_relu(meta, *(c.to("meta") for c in constants), meta.clone(), inplace=inplace)
    assert got.is_meta
    assert (got is meta) == inplace
    like(ops.frozen_bn_relu(real, *constants, real.clone()), got)


def test_backward_on_meta(backend):
    case = DEFORM_CASES_BY_NAME["groups_2_offset_groups_4"]
    arguments = deform_arguments(case, torch.float32, "meta")
    grad = arguments.pop("grad")
    leaves = {key: value.requires_grad_() for key, value in arguments.items()}
    output = ops.deform_conv2d(**leaves, **case.geometry)
    output = ops.frozen_bn_relu(output, *torch.empty(2, case.out_channels, device="meta"), inplace=True)
    output.backward(grad)
    for key, leaf in leaves.items():
        assert leaf.grad.is_meta, key
        assert leaf.grad.shape == leaf.shape, key
        assert leaf.grad.dtype == leaf.dtype, key


def test_fake_tensors(backend):
    with FakeTensorMode():
        x = torch.randn(2, 8, 1000, 2000, requires_grad=True)  # nothing is allocated
        offset = torch.randn(2, 18, 1000, 2000, dtype=torch.float32)
        y = ops.deform_conv2d(x, offset, torch.randn(4, 8, 3, 3), padding=1)
        z = ops.frozen_bn_relu(y, torch.randn(4), torch.randn(4))
        assert y.shape == z.shape == (2, 4, 1000, 2000)
        z.sum().backward()
        assert x.grad.shape == x.shape
