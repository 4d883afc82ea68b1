"""What accelerate leaves alone: subclasses, replaced forwards, hooks, other activations."""

from __future__ import annotations

import pytest
import torch
from helpers.accelerated import image, randomised
from torch import nn

from resnet_cuda.acceleration import accelerate
from resnet_cuda.layers import DeformConv2d

pytest.importorskip("torchvision")
from torchvision.models import resnet, resnet18
from torchvision.ops import FrozenBatchNorm2d


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
