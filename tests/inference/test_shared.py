"""Shared modules: what stands in several places, itself or within another module, changes for none of them."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import randomise, torchvision_style
from helpers.optimized import check, conv_norm, image
from torch import nn

from resnet_cuda import optimize_for_inference
from resnet_cuda.fpn import FeaturePyramidNetwork
from resnet_cuda.layers import DFConv2d


def nothing(channels, **options):
    return nn.Identity()


class TwoPlaces(nn.Module):
    """A module, and a part of it once more."""

    def __init__(self, module, part):
        super().__init__()
        self.module, self.part = module, part

    def forward(self, x):
        return self.module(x), self.part(x)


def blocks_without_norms():
    resnet = pytest.importorskip("torchvision.models.resnet")
    timm = pytest.importorskip("timm.models.resnet")
    yield lambda: resnet.BasicBlock(8, 8, norm_layer=nothing)
    yield lambda: resnet.Bottleneck(8, 2, norm_layer=nothing)
    yield lambda: timm.BasicBlock(8, 8, norm_layer=nothing)
    yield lambda: timm.Bottleneck(8, 2, norm_layer=nothing)


@pytest.mark.parametrize("index", range(4))
def test_a_convolution_of_a_block_without_norms(index):
    make = list(blocks_without_norms())[index]
    for name in ("conv1", "conv2", "conv3"):
        block = make()
        if not hasattr(block, name):
            continue
        width = getattr(block, name).in_channels
        part = nn.Sequential(nn.Conv2d(8, width, 1), getattr(block, name))
        optimized = check(TwoPlaces(block, part), image(8))
        assert optimized.optimization_report.fused == []
    assert check(TwoPlaces(make(), nn.Identity()), image(8)).optimization_report.fused == ["module"]


def test_a_convolution_of_two_blocks():
    models = pytest.importorskip("torchvision.models")
    model = models.resnet18(norm_layer=nothing)
    model.layer1[1].conv1 = model.layer1[0].conv2
    fused = check(model, image()).optimization_report.fused
    assert not {"layer1.0", "layer1.1"} & set(fused) and "layer2.0" in fused


def test_a_stem_without_norm():
    model = torchvision_style(dcn=False, name="resnet18")
    model.body.bn1 = nn.Identity()
    optimized = check(TwoPlaces(model, model.body.conv1), image())
    assert "module.body" not in optimized.optimization_report.fused


def test_a_deep_stem():
    """The convolution stands in one place, the Sequential around it in two."""
    model = torchvision_style(dcn=False, name="resnet50d")
    left = ["module.body.bn1", "module.body.conv1.1", "module.body.conv1.4"]
    check(TwoPlaces(model, model.body.conv1), image(), left=left)
    model = torchvision_style(dcn=False, name="resnet50d")
    model.body.bn1 = nn.Identity()
    check(TwoPlaces(model, model.body.conv1), image())


def test_a_stem_of_this_package_without_norm():
    from resnet_cuda.blocks import StemWithGN
    from resnet_cuda.config import get_cfg

    stem = StemWithGN(get_cfg())
    stem.bn1 = nn.Identity()
    optimized = check(TwoPlaces(stem, stem.conv1), image())
    assert optimized.optimization_report.fused == []


def test_a_sequential_that_another_module_takes_apart():
    class First(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = layers

        def forward(self, x):
            return self.layers[0](x)

    shared = nn.Sequential(*conv_norm(8))
    optimized = check(nn.Sequential(shared, First(shared)), image(8), left=["0.1"])
    assert "Sequential stands in 2 places" in optimized.optimization_report.left["0.1"]
    model = torchvision_style(dcn=False, name="resnet18")
    shortcut = model.body.layer2[0].downsample
    part = nn.Sequential(nn.Conv2d(3, shortcut[0].in_channels, 1), First(shortcut))
    check(TwoPlaces(model, part), image(), left=["module.body.layer2.0.downsample.1"])


def test_the_convolution_within_a_deformable_layer():
    class Plain(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            mask = torch.ones_like(x[:, :1, 2:, 2:]).expand(-1, 9, -1, -1)
            return self.conv(x, torch.zeros_like(mask).repeat(1, 2, 1, 1), mask)

    deformable = DFConv2d(3, 8, padding=0)
    model = TwoPlaces(nn.Sequential(deformable, nn.BatchNorm2d(8)), Plain(deformable.conv))
    check(nn.Sequential(model.module), image(), left=[])
    check(model.module, image(), left=[])
    root = nn.Sequential(*model.module)
    root.append(nn.Sequential(nn.Conv2d(8, 3, 1), Plain(deformable.conv)))
    check(root, image(), left=["1"])


def test_lateral_convolutions():
    pyramid = FeaturePyramidNetwork([8, 8], 8)
    pyramid.inner_blocks[1] = pyramid.inner_blocks[0]
    check(pyramid, {"a": image(8, 16), "b": image(8, 8)})


def test_relus():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Sequential(*conv_norm()[:2], relu), nn.Sequential(nn.Conv2d(8, 8, 1), relu))
    optimized = check(model, image(), left=[])
    assert type(optimized[0][2]) is nn.ReLU


def test_a_model_that_shares_nothing_is_fused_as_before():
    model = randomise(torchvision_style(dcn=True, name="resnet50")).eval()
    report = optimize_for_inference(model).optimization_report
    assert not report.left and "body" in report.fused and "body.layer4" in report.fused
