"""Meta and fake tensors: shape, dtype, device and strides as the real operators give them, without computing."""

from dataclasses import replace

import pytest
import torch
from helpers.bad_arguments import moved
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME
from helpers.layouts import in_format
from helpers.problems import deform_arguments, forward_arguments
from torch._subclasses.fake_tensor import FakeTensorMode

from resnet_cuda import ops


def assert_alike(real, meta):
    assert meta.is_meta
    assert meta.shape == real.shape
    assert meta.dtype == real.dtype
    assert real.numel() == 0 or meta.stride() == real.stride()


def check(case, memory_format, dtype):
    real = in_format(forward_arguments(case, dtype), memory_format)
    meta = ops.deform_conv2d(**moved(real, "meta"), **case.geometry)
    assert_alike(ops.deform_conv2d(**real, **case.geometry), meta)


@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_deform_conv2d_on_meta(case, memory_format, backend):
    check(case, memory_format, torch.float16)


@pytest.mark.parametrize("name", ["plain", "one_pixel", "one_column", "channels_1_to_1"])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_strides_of_tensors_in_both_formats_at_once(name, batch, memory_format, backend):
    """With one channel or one pixel a tensor is contiguous and channels_last; real and meta must call it the same."""
    check(replace(DEFORM_CASES_BY_NAME[name], batch=batch), memory_format, torch.float32)


@pytest.mark.parametrize("inplace", [False, True])
def test_frozen_bn_relu_on_meta(memory_format, inplace, backend):
    real = torch.randn(2, 3, 4, 5, dtype=torch.bfloat16).contiguous(memory_format=memory_format)
    constants = torch.ones(3), torch.zeros(3)
    meta = real.to("meta")
    got = ops.frozen_bn_relu(meta, *(c.to("meta") for c in constants), meta.clone(), inplace=inplace)
    assert (got is meta) == inplace
    assert_alike(ops.frozen_bn_relu(real, *constants, real.clone()), got)


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


def test_fake_tensors_forward_and_backward(backend):
    with FakeTensorMode():
        x = torch.randn(2, 8, 1000, 2000, requires_grad=True)  # nothing is allocated
        offset = torch.randn(2, 18, 1000, 2000, dtype=torch.float32)
        y = ops.deform_conv2d(x, offset, torch.randn(4, 8, 3, 3), padding=1)
        z = ops.frozen_bn_relu(y, torch.randn(4), torch.randn(4))
        assert y.shape == z.shape == (2, 4, 1000, 2000)
        z.sum().backward()
        assert x.grad.shape == x.shape
