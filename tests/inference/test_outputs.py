"""optimize_for_inference gives the outputs of the model, for every kind of model that it knows."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.networks import cfg_built, levels_of, narrow_cfg, randomise, torchvision_style
from torch import nn

from resnet_cuda import build_backbone, optimize_for_inference
from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.inference.deformable import FoldedDeformConv2d
from resnet_cuda.layers import FrozenBatchNorm2d
from resnet_cuda.resnet import ResNetHead
from resnet_cuda.stage_specs import StageSpec


def image(*shape, dtype=torch.float64):
    torch.manual_seed(5)
    return torch.randn(*(shape or (2, 3, 65, 90)), dtype=dtype)


@torch.no_grad()
def assert_same_outputs(model, x, tolerance=1e-12):
    """In float64, where the rounding of the fold is all that may differ; every norm is folded."""
    model = model.eval().to(x.dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimized = optimize_for_inference(model)
    expected = model(x)
    found, expected = (levels_of(it) if not isinstance(it, torch.Tensor) else [it] for it in (optimized(x), expected))
    assert len(found) == len(expected)
    for one, right in zip(found, expected, strict=True):
        torch.testing.assert_close(one, right, rtol=0, atol=tolerance * right.abs().max().item())
        assert right.abs().max() > 0
    assert not optimized.optimization_report.left
    assert not any(isinstance(it, (FrozenBatchNorm2d, nn.BatchNorm2d)) for it in optimized.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    return optimized


@pytest.mark.parametrize("norm", ["frozen_bn", "bn", "sync_bn"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet50d", "resnext50_32x4d"])
def test_torchvision_style(name, norm, backend):
    model = torchvision_style(dcn=True, name=name, norm=norm, width=16)
    optimized = assert_same_outputs(model, image())
    stages = [f"body.layer{index}" for index in (1, 2, 3, 4)]
    assert {"body", "fpn", *stages} <= set(optimized.optimization_report.fused)
    assert sum(isinstance(it, FoldedDeformConv2d) for it in optimized.modules()) > 0


def test_pyramid_with_norms():
    from resnet_cuda import resnet_fpn_backbone

    options = {"width": 16, "fpn_channels": 16, "dcn_stages": (False, False, True, True)}
    model = resnet_fpn_backbone("resnet18", norm_layer="frozen_bn", fpn_norm_layer="bn", **options)
    optimized = assert_same_outputs(randomise(model), image())
    assert "fpn" in optimized.optimization_report.fused
    assert len(optimized.optimization_report.folded) == 20 + 8


def test_configured(backend):
    optimized = assert_same_outputs(cfg_built(dcn=True), image())
    assert {"body.stem", "body.layer4", "fpn"} <= set(optimized.optimization_report.fused)
    assert [it.channels for it in optimized.output_shape().values()] == [16] * 5


@pytest.mark.parametrize("body", ["R-50-C4", "R-50-DC5", "R-50-FPN-RETINANET"])
def test_other_bodies(body):
    model = randomise(build_backbone(narrow_cfg(body, BACKBONE_OUT_CHANNELS=16)))
    assert_same_outputs(model, image(1, 3, 64, 64))


def test_head_on_nchw_regions():
    head = ResNetHead("BottleneckWithFixedBatchNorm", [StageSpec(4, 3, True)], 1, 8, res2_out_channels=16)
    assert_same_outputs(randomise(head), image(5, 64, 7, 7))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v3_small"])
@pytest.mark.parametrize("frozen", [False, True])
def test_torchvisions_classifiers(name, frozen):
    models = pytest.importorskip("torchvision.models")
    from torchvision.ops import FrozenBatchNorm2d as TorchvisionsNorm

    options = {"norm_layer": TorchvisionsNorm} if frozen else {}
    model = getattr(models, name)(num_classes=10, **options)
    _randomise_norms(model)
    assert_same_outputs(model, image(2, 3, 64, 64))


@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "resnet26d", "seresnet50", "resnetaa50"])
def test_timms(name, features):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, features_only=True) if features else timm.create_model(name, num_classes=10)
    optimized = assert_same_outputs(_randomise_norms(model), image(1, 3, 64, 96))
    fused = [entry for entry in optimized.optimization_report.fused if entry.startswith("layer")]
    assert bool(fused) == (name != "seresnet50")  # whose attention is between the last norm and the sum


def test_timms_frozen_norms():
    timm = pytest.importorskip("timm")
    from timm.layers import freeze_batch_norm_2d

    assert_same_outputs(freeze_batch_norm_2d(_randomise_norms(timm.create_model("resnet18"))), image(1, 3, 64, 96))


def test_timms_norms_with_activation():
    timm_layers = pytest.importorskip("timm.layers")
    parts = [timm_layers.ConvNormAct(3, 8, 3), timm_layers.ConvNormAct(8, 8, 3, apply_act=False)]
    model = nn.Sequential(*parts)
    assert_same_outputs(_randomise_norms(model), image(1, 3, 16, 16))
    assert_same_outputs(timm_layers.freeze_batch_norm_2d(_randomise_norms(model)), image(1, 3, 16, 16))


@pytest.mark.parametrize("head", ["fcn", "deeplabv3"])
def test_torchvisions_segmentation_heads(head):
    segmentation = pytest.importorskip("torchvision.models.segmentation", reason="folds torchvision's heads")
    if head == "fcn":
        model, norms = segmentation.fcn.FCNHead(16, 5), 1
    else:
        model, norms = segmentation.deeplabv3.DeepLabHead(16, 5, [2, 4, 6]), 7
    optimized = assert_same_outputs(randomise(model), image(2, 16, 17, 23))
    assert len(optimized.optimization_report.folded) == norms
    x = image(1, 16, 9, 13)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(optimized)(x), model(x), rtol=0, atol=1e-10)


def test_plain_sequential():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=True),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), FrozenBatchNorm2d(8), nn.Sigmoid()),
        nn.Conv2d(8, 4, 3, padding="same", padding_mode="reflect"),
        nn.BatchNorm2d(4),
    )
    model[1].running_var.uniform_(0.5, 1.5)
    model[1].running_mean.normal_()
    randomise(model[3])
    optimized = assert_same_outputs(model, image(1, 3, 16, 17))
    assert [type(it) for it in optimized][:3] == [FoldedConv2d, nn.Identity, nn.Identity]


@pytest.mark.parametrize(
    "builder", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn", "fcos_resnet50_fpn"]
)
def test_torchvisions_detectors(builder):
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    options = {"min_size": 64, "max_size": 96, "num_classes": 3}
    if "mask" in builder:
        options |= {"box_score_thresh": 0.0, "rpn_post_nms_top_n_test": 10, "box_detections_per_img": 3}
    else:
        options |= {"score_thresh": 0.0, "detections_per_img": 10}
    model = getattr(detection, builder)(weights=None, weights_backbone=None, **options).eval().double()
    _randomise_norms(model)
    images = [torch.rand(3, 60, 80, dtype=torch.float64), torch.rand(3, 64, 50, dtype=torch.float64)]
    optimized = optimize_for_inference(model)
    assert not optimized.optimization_report.left
    with torch.no_grad():
        found, expected = optimized(images), model(images)
    assert sum(len(it["boxes"]) for it in expected) > 0
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def _randomise_norms(model):
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if getattr(module, "running_var", None) is not None:
            with torch.no_grad():
                for name, low, high in (
                    ("weight", 0.4, 0.8),
                    ("bias", -0.3, 0.3),
                    ("running_mean", -0.3, 0.3),
                    ("running_var", 0.5, 1.5),
                ):
                    getattr(module, name).uniform_(low, high, generator=generator)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("convert", ["before", "after"])
def test_other_dtypes_are_as_near_to_float64_as_the_model(dtype, convert):
    model = torchvision_style(dcn=True).eval()
    x = image()
    with torch.no_grad():
        exact = model.double()(x)
        model = model.float()
        optimized = optimize_for_inference(copy.deepcopy(model).to(dtype) if convert == "before" else model).to(dtype)
        found, usual = optimized(x.to(dtype)), model.to(dtype)(x.to(dtype))
    for name, right in exact.items():
        assert found[name].dtype == dtype
        errors = [(it[name].double() - right).abs().max() / right.abs().max() for it in (found, usual)]
        assert errors[0] <= 1.5 * errors[1] + torch.finfo(dtype).eps, name


def test_rounding_of_the_fold_is_once():
    conv, norm = nn.Conv2d(4, 8, 1, bias=False), FrozenBatchNorm2d(8)
    randomise(norm)
    optimized = optimize_for_inference(nn.Sequential(conv, norm))
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    assert torch.equal(optimized[0].weight, (conv.weight.double() * scale[:, None, None, None]).float())
    assert torch.equal(optimized[0].bias, shift.float())
