"""optimize_for_inference and accelerate on the networks of detectron2, mmdetection and maskrcnn-benchmark."""

from __future__ import annotations

import copy
import sys
import types

import pytest
import torch
from same import assert_near, randomise, tensors_of
from torch import nn

from resnet_cuda import accelerate, optimize_for_inference

NARROW = {"STEM_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 32, "RES2_OUT_CHANNELS": 64}
BASIC = {"DEPTH": 18, "STEM_OUT_CHANNELS": 16, "RES2_OUT_CHANNELS": 64}
DEFORM = {"DEFORM_ON_PER_STAGE": [False, False, True, True]}
MMDET = {"depth": 50, "base_channels": 32, "norm_eval": True}
DCN = {"dcn": {"type": "DCN", "deform_groups": 1}, "stage_with_dcn": (False, False, True, True)}
DCNV2 = {"dcn": {"type": "DCNv2", "deform_groups": 2}, "stage_with_dcn": (False, False, True, True)}


def image():
    torch.manual_seed(5)
    return torch.randn(2, 3, 64, 96, dtype=torch.float64)


def detectron2s(name, resnets):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.RESNETS.update({**NARROW, "OUT_FEATURES": ["res2", "res3", "res4", "res5"], **resnets})
    cfg.MODEL.FPN.update({"OUT_CHANNELS": 32, "IN_FEATURES": ["res2", "res3", "res4", "res5"]})
    torch.manual_seed(0)
    return randomise(build_backbone(cfg)).double().eval()


def mmdetections(kind, options):
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    model = randomise(MODELS.build({"type": kind, **MMDET, **copy.deepcopy(options)})).double()
    model.eval()
    return model


@torch.no_grad()
def assert_optimized(model, folded, fused):
    """Same outputs, all ``folded`` norms gone, and so many fused modules."""
    expected = tensors_of(model(image()))
    optimized = optimize_for_inference(model)
    report = optimized.optimization_report
    for name, value in tensors_of(optimized(image())).items():
        assert_near(value, expected[name], name, 1e-12)
    assert (len(report.folded), len(report.left), len(report.fused)) == (folded, 0, fused)
    assert not any("BatchNorm" in type(it).__name__ for it in optimized.modules())


def gradients(model, x):
    model.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    outputs = tensors_of(model(x))
    sum(it.square().mean() for it in outputs.values()).backward()
    found = {name: it.grad for name, it in model.named_parameters() if it.grad is not None}
    return {**{f"output {name}": it.detach() for name, it in outputs.items()}, "input": x.grad, **found}


def assert_accelerated(model, replaced):
    expected = gradients(model, image())
    keys, classes = list(model.state_dict()), [type(it) for it in model.modules()]
    acceleration = accelerate(model)
    counts = {before: list(acceleration.replaced.values()).count(before) for before in acceleration.replaced.values()}
    assert {name.rsplit(".", 1)[1]: count for name, count in counts.items()} == replaced
    torch.testing.assert_close(gradients(model, image()), expected, rtol=1e-8, atol=1e-10)
    assert list(model.state_dict()) == keys
    acceleration.undo()
    assert [type(it) for it in model.modules()] == classes


@pytest.mark.parametrize(
    ("resnets", "folded", "fused"),
    [
        ({}, 53, 1 + 16 + 4),
        ({"NORM": "BN"}, 53, 1 + 16 + 4),
        (BASIC, 21, 1 + 8 + 4),
        (DEFORM, 53, 1 + 16 + 4),
        ({**DEFORM, "DEFORM_MODULATED": True, "DEFORM_NUM_GROUPS": 2}, 53, 1 + 16 + 4),
        ({"NUM_GROUPS": 8, "WIDTH_PER_GROUP": 4, "STRIDE_IN_1X1": False}, 53, 1 + 16 + 4),
        ({"NORM": "GN"}, 0, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("ours", [False, True], ids=["theirs", "ours"])
def test_detectron2_optimized(detectron2, resnets, folded, fused, ours):
    name = "build_resnet_cuda_backbone" if ours else "build_resnet_backbone"
    assert_optimized(detectron2s(name, resnets), folded, fused)


def test_detectron2_pyramid_optimized(detectron2):
    model = detectron2s("build_resnet_fpn_backbone", {})
    assert_optimized(model, 53, 1 + 16 + 4)
    model.lateral_convs[0].norm = nn.GroupNorm(4, 32).double()
    model.lateral_convs[1].norm = randomise(nn.BatchNorm2d(32)).double().eval()
    assert_optimized(model, 54, 1 + 16 + 4)


@pytest.mark.parametrize(
    ("resnets", "replaced"),
    [
        ({}, {"FrozenBatchNorm2d": 53, "BottleneckBlock": 16, "BasicStem": 1}),
        (BASIC, {"FrozenBatchNorm2d": 21, "BasicBlock": 8, "BasicStem": 1}),
        ({"NORM": "GN"}, {"BottleneckBlock": 16, "BasicStem": 1}),
        (
            DEFORM,
            {
                "FrozenBatchNorm2d": 53,
                "BottleneckBlock": 7,
                "DeformBottleneckBlock": 9,
                "DeformConv": 9,
                "BasicStem": 1,
            },
        ),
        (
            {**DEFORM, "DEFORM_MODULATED": True, "DEFORM_NUM_GROUPS": 2},
            {
                "FrozenBatchNorm2d": 53,
                "BottleneckBlock": 7,
                "DeformBottleneckBlock": 9,
                "ModulatedDeformConv": 9,
                "BasicStem": 1,
            },
        ),
    ],
    ids=str,
)
def test_detectron2_accelerated(detectron2, resnets, replaced):
    assert_accelerated(detectron2s("build_resnet_backbone", resnets), replaced)


def test_detectron2_hook_falls_back(detectron2):
    model = detectron2s("build_resnet_backbone", {})
    block = model.res3[1]
    block.conv2.register_forward_hook(lambda module, arguments, output: output * 2)
    block.conv1.norm.register_forward_hook(lambda module, arguments, output: output + 1)
    with torch.no_grad():
        expected = tensors_of(model(image()))
        accelerate(model)
        for name, value in tensors_of(model(image())).items():
            assert_near(value, expected[name], name, 1e-12)


@pytest.mark.parametrize(
    ("options", "folded", "fused"),
    [
        ({}, 53, 16 + 4),
        ({"depth": 18}, 20, 8 + 4),
        ({"deep_stem": True, "avg_down": True}, 55, 16 + 4),
        ({"style": "caffe", "with_cp": True}, 53, 16 + 4),
        (DCN, 53, 16 + 4),
        (DCNV2, 53, 16 + 4),
        ({"norm_cfg": {"type": "GN", "num_groups": 16}}, 0, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["ResNet", "ResNetCUDA"])
def test_mmdetection_optimized(mmdet, kind, options, folded, fused):
    stages = 0 if kind == "ResNet" else 4  # mmdetection's are no Sequentials of torch's class
    assert_optimized(mmdetections(kind, options), folded, fused - 4 + stages if fused else 0)


@pytest.mark.parametrize(
    ("options", "replaced"),
    [
        ({}, {"ResNet": 1, "Bottleneck": 16}),
        ({"depth": 18}, {"ResNet": 1, "BasicBlock": 8}),
        ({"with_cp": True}, {"ResNet": 1, "Bottleneck": 16}),
        ({"deep_stem": True, "avg_down": True}, {"ResNet": 1, "Bottleneck": 16}),
        (DCN, {"ResNet": 1, "Bottleneck": 16, "DeformConv2dPack": 9}),
        (DCNV2, {"ResNet": 1, "Bottleneck": 16, "ModulatedDeformConv2dPack": 9}),
    ],
    ids=str,
)
@pytest.mark.parametrize("frozen", [False, True])
def test_mmdetection_accelerated(mmdet, options, replaced, frozen):
    model = mmdetections("ResNet", {**options, "norm_cfg": {"type": "BN", "requires_grad": not frozen}})
    assert_accelerated(model, replaced)


MASKRCNN_BENCHMARKS_NORM = """
import torch

class FrozenBatchNorm2d(torch.nn.Module):
    def __init__(self, n):
        super().__init__()
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, torch.full((n,), float(value)))

    def forward(self, x):
        scale = self.weight * self.running_var.rsqrt()
        bias = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)
"""


def test_maskrcnn_benchmarks_norm(monkeypatch):
    """A module of its name and with its code stands in: importing the package would change it."""
    names = ("maskrcnn_benchmark", "maskrcnn_benchmark.layers", "maskrcnn_benchmark.layers.batch_norm")
    modules = [types.ModuleType(name) for name in names]
    modules[0].layers, modules[1].batch_norm = modules[1:]
    exec(MASKRCNN_BENCHMARKS_NORM, vars(modules[2]))
    norm = modules[2].FrozenBatchNorm2d
    for name, module in zip(names, modules, strict=True):
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "resnet_cuda.acceleration.maskrcnn_benchmark", raising=False)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), randomise(norm(8))).double().eval()
    expected = model(image())
    assert_near(optimize_for_inference(model)(image()), expected.detach(), "optimized", 1e-12)
    found = accelerate(model)
    assert list(found.replaced) == ["1"] and type(model[1]) is not norm
    assert_near(model(image()), expected, "accelerated", 1e-12)
    found.undo()
    assert type(model[1]) is norm
    sys.modules.pop("resnet_cuda.acceleration.maskrcnn_benchmark")


PATCHED = {
    "conv2": "detectron2.layers.wrappers.Conv2d.forward",
    "block": "detectron2.modeling.backbone.resnet.BottleneckBlock.forward",
    "stem": "detectron2.modeling.backbone.resnet.BasicStem.forward",
    "norm": "detectron2.layers.batch_norm.FrozenBatchNorm2d.forward",
    "mmdetection's block": "mmdet.models.backbones.resnet.Bottleneck.forward",
    "mmdetection's norms": "mmdet.models.backbones.resnet.Bottleneck.norm2",
    "mmdetection's network": "mmdet.models.backbones.resnet.ResNet.forward",
}


def doubled(method):
    if isinstance(method, property):
        return property(lambda self: lambda x: method.fget(self)(x) * 2)

    def patch(self, x):
        result = method(self, x)
        return tuple(it * 2 for it in result) if isinstance(result, tuple) else result * 2

    return patch


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:optimize_for_inference")
@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, change) for name in PATCHED for change in ("before optimize_for_inference", "before accelerate")),
        ("conv2", "after accelerate"),
    ],
)
def test_patched_methods(name, change, request, monkeypatch):
    """What other code puts on a class of the library; later, too, on one whose modules keep their class."""
    theirs = PATCHED[name].startswith("detectron2")
    request.getfixturevalue("detectron2" if theirs else "mmdet")
    model = detectron2s("build_resnet_backbone", {}) if theirs else mmdetections("ResNet", {})
    path, _, method = PATCHED[name].rpartition(".")
    module, _, attribute = path.rpartition(".")
    known = getattr(sys.modules[module], attribute)
    patch = doubled(getattr(known, method))
    changed = copy.deepcopy(model)
    if change == "after accelerate":
        accelerate(changed)
    monkeypatch.setattr(known, method, patch)
    if change == "before accelerate":
        accelerate(changed)
    elif change == "before optimize_for_inference":
        changed = optimize_for_inference(model)
    expected = tensors_of(model(image()))
    for level, value in tensors_of(changed(image())).items():
        assert_near(value, expected[level], level, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("library", ["detectron2", "mmdet"])
def test_accelerated_blocks_add_a_shortcut_of_another_shape(library, request):
    request.getfixturevalue(library)
    if library == "detectron2":
        model = detectron2s("build_resnet_backbone", {})
        model.res3[1].shortcut = nn.AdaptiveAvgPool2d(1)
    else:
        model = mmdetections("ResNet", {})
        model.layer2[1].downsample = nn.AdaptiveAvgPool2d(1)
    expected = tensors_of(model(image()))
    accelerate(model)
    for level, value in tensors_of(model(image())).items():
        assert_near(value, expected[level], level, 1e-12)
