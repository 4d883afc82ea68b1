"""Want of GPU memory has torch's class of error and its words, by which training loops tell a batch that is too large.

The compiled operators are replaced by functions that fail with the text of the real ones; the errors of a real GPU are
in tests/cuda/test_memory.py.
"""

from __future__ import annotations

import importlib

import pytest
import torch

from resnet_cuda import ops
from resnet_cuda.ops.deform_conv_relu import deform_conv2d_relu
from resnet_cuda.ops.frozen_bn import frozen_batch_norm

pytestmark = pytest.mark.usefixtures("native")
TEXT = "{}: cannot allocate 8 bytes for a tensor of shape (2,) of torch.float32 on cuda:0: CUDA out of memory. Tried to"
OTHER = "{}: cannot allocate 8 bytes for a tensor of shape (2,) of torch.float32 on cpu: DefaultCPUAllocator: can't"


def fails(text):
    def overload(*arguments):
        raise RuntimeError(text)

    return overload


def deformable(**options):
    x = torch.ones(1, 2, 4, 4, **options)
    return ops.deform_conv2d(x, torch.zeros(1, 2, 4, 4), torch.ones(2, 2, 1, 1))


def deformable_relu(**options):
    return deform_conv2d_relu(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), torch.ones(2, 2, 1, 1))


def norm(inplace=False, **options):
    x = torch.ones(1, 2, 4, 4, **options)
    return ops.frozen_bn_relu(x, torch.ones(2), torch.zeros(2), inplace=inplace)


def norm_in_place(**options):
    return norm(inplace=True)


def layer(**options):
    return frozen_batch_norm(torch.ones(1, 2, 4, 4, **options), *torch.ones(4, 2), eps=1e-5, relu=True)


CALLS = [
    (deformable, "deform_conv", "_FORWARD"),
    (deformable_relu, "deform_conv_relu", "_FORWARD"),
    (norm, "frozen_bn", "_FORWARD"),
    (norm_in_place, "frozen_bn", "_IN_PLACE"),
    (layer, "frozen_bn", "_LAYER"),
]


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("call, module, overload", CALLS)
def test_forward(call, module, overload, requires_grad, monkeypatch):
    module = importlib.import_module(f"resnet_cuda.ops.{module}")
    monkeypatch.setattr(module, overload, fails(TEXT))
    with pytest.raises(torch.OutOfMemoryError, match="^{}: cannot allocate 8 bytes.*CUDA out of memory. "):
        call(requires_grad=requires_grad)
    monkeypatch.setattr(module, overload, fails(OTHER))
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator") as error:
        call(requires_grad=requires_grad)
    assert type(error.value) is RuntimeError


@pytest.mark.parametrize("call, module", [(deformable, "deform_conv"), (norm, "frozen_bn"), (layer, "frozen_bn")])
def test_backward(call, module, monkeypatch):
    output = call(requires_grad=True)
    monkeypatch.setattr(importlib.import_module(f"resnet_cuda.ops.{module}"), "_BACKWARD", fails(TEXT))
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory. "):
        output.sum().backward()
