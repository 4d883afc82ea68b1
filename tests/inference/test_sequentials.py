"""A Sequential is taken apart only where a call runs its modules in order, and nothing else."""

from __future__ import annotations

import types

import pytest
import torch
from helpers.networks import torchvision_style
from helpers.optimized import check, conv_norm, image
from helpers.sequentials import Doubles, DoublesAround
from torch import nn

from resnet_cuda import optimize_for_inference
from resnet_cuda.fpn import FPN, FeaturePyramidNetwork
from resnet_cuda.fpn import conv_with_kaiming_uniform as conv_block
from resnet_cuda.layers import FrozenBatchNorm2d


class Backwards(nn.Sequential):
    def __iter__(self):
        return reversed(list(super().__iter__()))


def with_forward_set(*modules):
    module = nn.Sequential(*modules)
    module.forward = types.MethodType(lambda self, x: nn.Sequential.forward(self, x) * 2, module)
    return module


KINDS = {"subclass": Doubles, "call": DoublesAround, "set": with_forward_set}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def test_a_root_with_a_forward_set_on_it():
    model = nn.Sequential(*conv_norm())
    model.forward = types.MethodType(lambda self, x: self[1](self[0](x).abs()), model)
    check(model, image(), left=["1"])


@every_kind
def test_a_sequential_in_a_root(make):
    check(nn.Sequential(nn.Sequential(make(*conv_norm())), nn.Conv2d(8, 4, 1)), image(), left=["0.0.1"])


@every_kind
def test_a_root(make):
    check(make(*conv_norm()), image(), left=["1"])


def test_another_order():
    model = nn.Sequential(Backwards(nn.BatchNorm2d(8), nn.Conv2d(3, 8, 3)))
    check(model, image(), left=["0.0"])
    model = torchvision_style(dcn=False, name="resnet18")
    model.body.layer2[0].downsample = Backwards(*reversed(list(model.body.layer2[0].downsample)))
    check(model, image())


@every_kind
@pytest.mark.parametrize("name", ["resnet18", "resnet50d"])
def test_a_stem(make, name):
    model = torchvision_style(dcn=False, name=name)
    conv1 = model.body.conv1
    model.body.conv1 = make(*conv1) if isinstance(conv1, nn.Sequential) else make(conv1)
    left = ["body.bn1"] + (["body.conv1.1", "body.conv1.4"] if name == "resnet50d" else [])
    check(model, image(), left=left)


def test_a_stem_without_modules():
    model = torchvision_style(dcn=False, name="resnet18").eval()
    model.body.conv1 = nn.Sequential()
    with pytest.warns(UserWarning, match="body.bn1: the layer before it is a Sequential"):
        optimize_for_inference(model)


@every_kind
def test_a_stem_of_timm(make):
    timm = pytest.importorskip("timm")
    for features in (False, True):
        model = timm.create_model("resnet18", features_only=features)
        model.conv1 = make(model.conv1)
        check(model, image(), left=["bn1"])


@every_kind
def test_a_shortcut(make):
    model = torchvision_style(dcn=False, name="resnet18")
    model.body.layer2[0].downsample = make(*model.body.layer2[0].downsample)
    optimized = check(model, image(), left=["body.layer2.0.downsample.1"])
    assert "body.layer2.0" in optimized.optimization_report.fused


@every_kind
def test_a_shortcut_without_norm_that_returns_what_it_keeps(make):
    models = pytest.importorskip("torchvision.models")

    class Keeps(nn.Sequential):
        def forward(self, input):
            self.result = super().forward(input)
            return self.result

    model = models.resnet18(norm_layer=lambda channels: nn.Identity())
    model.layer2[0].downsample = Keeps(*model.layer2[0].downsample)
    optimized = check(model, image())
    before = optimized.layer2[0].downsample.result
    torch.testing.assert_close(before, model.layer2[0].downsample.result, rtol=1e-10, atol=1e-10)


def levels(names=None):
    values = [image(8, size) for size in (16, 8)]
    return values if names is None else dict(zip(names, values, strict=True))


@every_kind
@pytest.mark.parametrize("which", ["inner_blocks", "layer_blocks"])
def test_a_pyramid(make, which):
    theirs = pytest.importorskip("torchvision.ops").FeaturePyramidNetwork
    for pyramid in (theirs([8, 8], 8), FeaturePyramidNetwork([8, 8], 8)):
        blocks = getattr(pyramid, which)
        blocks[0] = make(nn.Conv2d(8, 8, 1))
        check(pyramid, levels("ab"))
    pyramid = theirs([8, 8], 8, norm_layer=FrozenBatchNorm2d)
    blocks = getattr(pyramid, which)
    blocks[0] = make(*blocks[0])
    check(pyramid, levels("ab"), left=[f"{which}.0.1"])


@every_kind
@pytest.mark.parametrize("which", ["fpn_inner1", "fpn_layer1"])
def test_a_pyramid_of_maskrcnn_benchmark(make, which):
    pyramid = FPN([8, 8], 8, conv_block(False, False))
    setattr(pyramid, which, make(getattr(pyramid, which)))
    check(pyramid, levels())


@every_kind
def test_a_stage(make):
    model = torchvision_style(dcn=False, name="resnet18")
    model.body.layer1 = make(*model.body.layer1)
    optimized = check(model, image(), left=[])
    assert "body.layer1" not in optimized.optimization_report.fused


def test_other_modules_with_another_call():
    """A convolution, a norm, an activation, a deformable layer: what a call of each does is the class's."""
    from resnet_cuda.layers import DFConv2d, ModulatedDeformConv

    def calling(cls):
        return type(cls.__name__, (cls,), {"__call__": lambda self, *inputs: cls.__call__(self, *inputs) * 2})

    class Convolves(ModulatedDeformConv):
        def _convolve(self, input, offset, mask):
            return super()._convolve(input, offset, mask) * 2

    def deformable():
        layer = DFConv2d(3, 8)
        layer.conv = Convolves(3, 8, 3, padding=1)
        return layer

    for conv, norm, relu in (
        (calling(nn.Conv2d)(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        (nn.Conv2d(3, 8, 3), calling(nn.BatchNorm2d)(8), nn.ReLU()),
        (nn.Conv2d(3, 8, 3), calling(FrozenBatchNorm2d)(8), nn.ReLU()),
        (calling(DFConv2d)(3, 8), nn.BatchNorm2d(8), nn.ReLU()),
        (deformable(), nn.BatchNorm2d(8), nn.ReLU()),
    ):
        check(nn.Sequential(conv, norm, relu), image(), left=["1"])
    check(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), calling(nn.ReLU)()), image(), left=[])
    check(nn.Sequential(calling(nn.Identity)(), nn.Conv2d(3, 8, 3)), image(), left=[])
