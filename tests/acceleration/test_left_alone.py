"""What accelerate leaves alone: subclasses, replaced forwards, hooks, other activations."""

from __future__ import annotations

import pytest
import torch
from helpers.accelerated import image, randomised
from helpers.sequentials import Doubles, DoublesAround
from torch import nn

from resnet_cuda import optimize_for_inference
from resnet_cuda.acceleration import accelerate
from resnet_cuda.layers import DeformConv2d
from resnet_cuda.layers import FrozenBatchNorm2d as FrozenNorm

pytest.importorskip("torchvision")
from torchvision.models import resnet, resnet18
from torchvision.ops import FrozenBatchNorm2d, misc


class ScaledNorm(FrozenBatchNorm2d):
    def forward(self, x):
        return super().forward(2 * x)


class OtherBlock(resnet.BasicBlock):
    def forward(self, x):
        return super().forward(x) + 1


class MyFrozenBatchNorm2d(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))

    def forward(self, x):
        return x * self.weight[:, None, None] + 1


def test_subclasses_and_unknown_classes_stay():
    model = nn.Sequential(
        OtherBlock(4, 4, norm_layer=ScaledNorm),
        resnet.BasicBlock(4, 4, norm_layer=ScaledNorm),
        MyFrozenBatchNorm2d(4),
        DeformConv2d(4, 4, 1),
    ).double()
    randomised(model[:2])
    x = image(1, 4, 8, 8)
    expected = model[:3](x)
    found = accelerate(model)
    assert list(found.replaced) == ["1"]
    assert sorted(found.left) == ["0", "0.bn1", "0.bn2", "1.bn1", "1.bn2", "2"]
    assert found.left["0"] == "OtherBlock is a subclass of torchvision.models.resnet.BasicBlock"
    assert "MyFrozenBatchNorm2d is of no known class" in found.left["2"]
    assert "4 left alone: ScaledNorm is a subclass" in str(found)
    torch.testing.assert_close(model[:3](x), expected)


def test_a_forward_that_is_set_stays():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    norm, block = model.layer1[0].bn1, model.layer2[0]
    norm.forward = lambda x: x * 3
    block.forward = lambda x, original=block.forward: original(x) * 2
    expected = model(image())
    found = accelerate(model)
    assert found.left == {
        "layer1.0.bn1": "a forward is set on a FrozenBatchNorm2d",
        "layer2.0": "a forward is set on a BasicBlock",
    }
    torch.testing.assert_close(model(image()), expected)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "layer",
    [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        "layer2",
        "layer2.0",
        "layer2.0.conv1",
        "layer2.0.bn1",
        "layer2.0.bn2",
        "layer2.0.relu",
        "layer2.0.downsample",
        "layer2.0.downsample.1",
    ],
)
def test_hooks_see_and_change_what_they_do_in_torchvisions(layer, when):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    hooked = model.get_submodule(layer)
    seen = []

    def hook(module, arguments, output):
        seen.append(output.clone())
        return output * 1.5

    def run():
        seen.clear()
        return model(image()), list(seen)

    def register():
        return hooked.register_forward_hook(hook)

    handle = register()
    expected = run()
    if when == "after":
        handle.remove()
    accelerate(model)
    if when == "after":
        register()
    torch.testing.assert_close(run(), expected)


def test_another_activation():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    model.layer1[0].relu = nn.SiLU()
    model.relu = nn.SiLU()
    expected = model(image())
    accelerate(model)
    torch.testing.assert_close(model(image()), expected)


class NormAround(nn.BatchNorm2d):
    def __call__(self, input):
        return super().__call__(input) * 2


@pytest.mark.parametrize("kind", [Doubles, DoublesAround])
def test_sequentials_that_do_more(kind):
    model = randomised(resnet18()).double().eval().requires_grad_(False)
    model.conv1, model.layer1 = kind(model.conv1), kind(*model.layer1)
    model.layer2[0].downsample = kind(*model.layer2[0].downsample)
    x = image(1, 3, 40, 40)
    expected = model(x)
    accelerate(model)
    torch.testing.assert_close(model(x), expected)


def test_a_norm_with_another_call():
    model = resnet18(norm_layer=NormAround).double().eval().requires_grad_(False)
    x = image(1, 3, 40, 40)
    expected = model(x)
    accelerate(model)
    torch.testing.assert_close(model(x), expected)


def without(name):
    """What makes a norm without this parameter, as ``bias=False`` does in torch 2.14."""

    def make(channels):
        norm = nn.BatchNorm2d(channels)
        norm.register_parameter(name, None)
        return norm

    return make


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_norm_without_weight_or_bias(name, frozen):
    make = without(name)
    blocks = misc.Conv2dNormActivation(3, 8, 3, norm_layer=make), resnet.BasicBlock(8, 8, norm_layer=make)
    model = nn.Sequential(*blocks).double().eval().requires_grad_(not frozen)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    x = image(1, 3, 16, 16)
    expected = model(x)
    accelerate(model)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(optimize_for_inference(model)(x), expected)


@torch.no_grad()
def test_a_norm_that_torch_makes_without_bias():
    try:
        norm = nn.BatchNorm2d(8, bias=False)
    except TypeError:
        pytest.skip("this torch's BatchNorm2d has no argument bias")
    model = nn.Sequential(misc.Conv2dNormActivation(3, 8, 3, norm_layer=lambda _: norm)).double().eval()
    x = image(1, 3, 16, 16)
    expected = model(x)
    accelerate(model)
    torch.testing.assert_close(model(x), expected)
    frozen = FrozenNorm.convert_frozen_batchnorm(model)
    torch.testing.assert_close(frozen(x), expected)
