"""Networks whose parameters and images are DTensors [torch.distributed.tensor.distribute_module]."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.networks import one_process_group

import resnet_cuda

if not torch.distributed.is_available():
    pytest.skip("this torch has no torch.distributed", allow_module_level=True)

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module, distribute_tensor

from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d


@pytest.fixture
def mesh(tmp_path):
    with one_process_group(tmp_path):
        yield init_device_mesh("cpu", (1,))


def gradients(model, images):
    sum(features.square().mean() for features in model(images).values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("placement", [Replicate(), Shard(0)], ids=str)
def test_a_network_of_dtensors_gives_the_same_values_and_gradients(placement, mesh, backend):
    torch.manual_seed(0)
    model = resnet_cuda.resnet_fpn_backbone("resnet18", width=8, fpn_channels=8, trainable_layers=5).double()
    for norm in model.modules():
        if isinstance(norm, FrozenBatchNorm2d):
            norm.running_var.uniform_(0.5, 2)
            norm.bias.normal_()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14):
        pytest.skip("torch 2.10's convolution of DTensors takes no stride beside padding; versions between: not tried")
    distributed = distribute_module(copy.deepcopy(model), mesh)
    spread = distribute_tensor(images, mesh, [placement])
    expected = model(images)
    for name, features in distributed(spread).items():
        assert isinstance(features, DTensor)
        torch.testing.assert_close(features.full_tensor(), expected[name])
    actual = gradients(distributed, spread)
    for name, gradient in gradients(model, images).items():
        torch.testing.assert_close(actual[name].full_tensor(), gradient, msg=name)


def test_in_place_on_a_dtensor(mesh, backend):
    norm = distribute_module(FrozenBatchNorm2d(4), mesh)
    norm.bias.copy_(norm.bias - 0.5)
    x = torch.randn(2, 4, 3, 3)
    spread = distribute_tensor(x.clone(), mesh, [Shard(0)])
    assert norm(spread, relu=True, inplace=True) is spread
    torch.testing.assert_close(spread.full_tensor(), ((x / (1 + norm.eps) ** 0.5) - 0.5).relu())


def test_a_deformable_layer_says_what_to_do(mesh, backend):
    layer = distribute_module(DFConv2d(4, 4), mesh)
    with pytest.raises(ValueError, match=r"deform_conv2d: input is a DTensor; it must be a plain tensor: .*local_map"):
        layer(distribute_tensor(torch.randn(2, 4, 5, 5), mesh, [Shard(0)]))
