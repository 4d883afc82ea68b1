"""resnet_fpn_backbone: torchvision's keys, values and options, and deformable stages."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import deformable_stages
from torch import nn

from resnet_cuda import load_weights, resnet_fpn_backbone
from resnet_cuda.fpn import LastLevelP6P7
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d

NAMES = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
NAMES += ["resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"]


@pytest.fixture
def theirs():
    utils = pytest.importorskip("torchvision.models.detection.backbone_utils", reason="compares with torchvision")
    return utils.resnet_fpn_backbone


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_torchvisions_in_order(name, theirs):
    with torch.device("meta"):
        ours, other = resnet_fpn_backbone(name), theirs(backbone_name=name, weights=None)
    assert list(shapes(ours).items()) == list(shapes(other).items())
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in other.named_parameters()]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_values_equal_torchvisions(name, theirs, backend):
    other = theirs(backbone_name=name, weights=None).eval()
    for layer in other.modules():
        if hasattr(layer, "running_var"):
            layer.running_var.uniform_(0.5, 2)
            layer.running_mean.normal_()
    ours = resnet_fpn_backbone(name).eval()
    ours.load_state_dict(other.state_dict())
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        got, expected = ours(x), other(x)
    assert list(got) == list(expected) == ["0", "1", "2", "3", "pool"]
    for level in got:
        scale = expected[level].abs().max()
        assert scale > 0
        assert (got[level] - expected[level]).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("trainable", range(6))
def test_trainable_layers_are_torchvisions(trainable, theirs):
    with torch.device("meta"):
        for norm, other_norm in (("frozen_bn", None), ("bn", nn.BatchNorm2d)):
            options = {} if other_norm is None else {"norm_layer": other_norm}
            ours = resnet_fpn_backbone("resnet18", trainable_layers=trainable, norm_layer=norm)
            other = theirs(backbone_name="resnet18", weights=None, trainable_layers=trainable, **options)
            expected = {key: value.requires_grad for key, value in other.named_parameters()}
            assert {key: value.requires_grad for key, value in ours.named_parameters()} == expected


def test_returned_layers_and_torchvisions_extra_blocks(theirs):
    pyramids = pytest.importorskip("torchvision.ops.feature_pyramid_network")
    with torch.device("meta"):
        x = torch.randn(1, 3, 64, 64)
        options = {"returned_layers": [2, 3], "extra_blocks": pyramids.LastLevelP6P7(256, 256)}
        ours = resnet_fpn_backbone("resnet18", **options)
        other = theirs(backbone_name="resnet18", weights=None, **options)
        assert shapes(ours) == shapes(other)
        assert {key: value.shape for key, value in ours(x).items()} == {
            key: value.shape for key, value in other(x).items()
        }


@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("frozen_bn", FrozenBatchNorm2d),
        ("bn", nn.BatchNorm2d),
        ("sync_bn", nn.SyncBatchNorm),
        ("gn", nn.GroupNorm),
        (lambda channels: nn.InstanceNorm2d(channels), nn.InstanceNorm2d),
    ],
)
def test_norm_layer_makes_every_norm(norm, kind):
    with torch.device("meta"):
        backbone = resnet_fpn_backbone("resnet18", norm_layer=norm, width=16)
    assert sum(type(layer) is kind for layer in backbone.body.modules()) == 20


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_stages_take_plain_weights(name, modulated):
    plain = resnet_fpn_backbone(name, width=16, fpn_channels=8).body
    weights = {**plain.state_dict(), "fc.weight": torch.randn(5, 5), "fc.bias": torch.randn(5)}
    weights["bn1.num_batches_tracked"] = torch.tensor(3)
    backbone = resnet_fpn_backbone(
        name, weights=weights, width=16, dcn_stages=(False, True, False, True), modulated=modulated, deformable_groups=2
    )
    assert deformable_stages(backbone) == {"layer2", "layer4"}
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        got, expected = backbone.body(x), plain(x)
    torch.testing.assert_close(got["0"], expected["0"])
    if not modulated:  # offsets of 0 and no mask: the same network
        for level in got:
            torch.testing.assert_close(got[level], expected[level], atol=1e-3, rtol=1e-3)


def test_weights_that_do_not_fit_change_nothing():
    body = resnet_fpn_backbone("resnet18", width=16).body
    before = {key: value.clone() for key, value in body.state_dict().items()}
    good = {key: torch.zeros_like(value) for key, value in before.items()}
    cases = {
        "missing: conv1.weight": {key: value for key, value in good.items() if key != "conv1.weight"},
        "unexpected: layer9.weight": {**good, "layer9.weight": torch.zeros(1)},
        "unexpected: bn9.weight": {**good, "bn9.weight": torch.zeros(1)},
        r"of another shape: bn1.bias \(3,\) for bn1.bias \(16,\)": {**good, "bn1.bias": torch.zeros(3)},
    }
    for message, weights in cases.items():
        with pytest.raises(ValueError, match=message):
            load_weights(body, weights)
        for key, value in body.state_dict().items():
            assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backbone_name": "vgg16"}, KeyError, "unknown backbone_name 'vgg16'; allowed are resnet101"),
        ({"trainable_layers": 6}, ValueError, "trainable_layers is 6; it must be 0 to 5"),
        ({"returned_layers": [0, 1]}, ValueError, r"returned_layers is \[0, 1\]; it must be ascending"),
        ({"returned_layers": [3, 2]}, ValueError, r"returned_layers is \[3, 2\]; it must be ascending"),
        ({"dcn_stages": (True,)}, ValueError, r"dcn_stages is \(True,\); it must be 4 of True and False"),
        ({"norm_layer": "batch"}, KeyError, "unknown norm_layer 'batch'; allowed are bn, frozen_bn, gn, sync_bn"),
        ({"weights": 5}, ValueError, "weights is 5; it must be a path, a state dict"),
        ({"extra_blocks": True}, TypeError, "extra_blocks is True; it must be None or a module"),
        ({"extra_blocks": LastLevelP6P7}, TypeError, "extra_blocks is <class .*; it must be None or a module"),
        (
            {"deformable_groups": 3, "dcn_stages": (False, False, False, True)},
            ValueError,
            "deformable_groups is 3; it must divide",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message), torch.device("meta"):
        resnet_fpn_backbone(**({"backbone_name": "resnet18"} | arguments))


def test_weights_by_an_unknown_name_are_refused():
    pytest.importorskip("torchvision")
    with pytest.raises(ValueError, match="weights is 'BEST'; allowed for resnet50 are IMAGENET1K_V1, IMAGENET1K_V2"):
        resnet_fpn_backbone("resnet50", weights="BEST")


def test_mask_rcnn_trains_on_it():
    detection = pytest.importorskip("torchvision.models.detection", reason="trains torchvision's detector")
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        "resnet18", width=16, fpn_channels=32, trainable_layers=5, dcn_stages=(False, True, True, True)
    )
    model = detection.MaskRCNN(backbone, num_classes=2, min_size=64, max_size=96)
    masks = torch.zeros(1, 64, 80, dtype=torch.uint8)
    masks[0, 10:40, 12:50] = 1
    target = {"boxes": torch.tensor([[12.0, 10, 50, 40]]), "labels": torch.tensor([1]), "masks": masks}
    sum(model([torch.rand(3, 64, 80)], [target]).values()).backward()
    for key, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    offsets = [layer.offset.weight.grad for layer in backbone.modules() if isinstance(layer, DFConv2d)]
    assert len(offsets) == 6
    assert any(gradient.any() for gradient in offsets)
