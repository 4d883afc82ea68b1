"""torchvision's detectors on our backbone, against its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from same import assert_near, randomise
from torch import nn

detection = pytest.importorskip("torchvision.models.detection")

from resnet_cuda.integrations import torchvision as ours  # noqa: E402
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d  # noqa: E402
from resnet_cuda.weights import sources  # noqa: E402

NAMES = sorted(ours._RECIPES)
SMALL = {"min_size": 64, "max_size": 96}
TARGET = {
    "boxes": torch.tensor([[4.0, 5.0, 40.0, 50.0], [20.0, 10.0, 90.0, 60.0]], dtype=torch.float64),
    "labels": torch.tensor([1, 1]),
    "masks": torch.ones(2, 64, 96, dtype=torch.uint8),
    "keypoints": torch.tensor([[[20.0, 30.0, 1.0]] * 17, [[50.0, 40.0, 1.0]] * 17]),
}


FEW_BOXES = {
    "rpn_post_nms_top_n_train": 16,
    "rpn_post_nms_top_n_test": 8,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 3,
}


def without_weights(name):
    return {"weights_backbone": None} if not name.endswith("_v2") else {}


def few_boxes(name):
    return FEW_BOXES if "rcnn" in name else {"topk_candidates": 16}


def run(model):
    """Losses, gradients and detections in float64, the same whatever was drawn before."""
    torch.manual_seed(3)
    image = torch.rand(3, 64, 96, dtype=torch.float64)
    model.double().train()
    losses = model([image], [TARGET])
    sum(losses.values()).backward()
    with torch.no_grad():
        (found,) = model.eval()([image])
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return losses, gradients, found


def assert_same_detector(model, theirs):
    theirs_results = run(theirs)
    losses, gradients, found = run(model)
    for got, wanted, tolerance in ((losses, theirs_results[0], 1e-9), (gradients, theirs_results[1], 1e-7)):
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            if value.any():
                assert_near(got[name], value, name, tolerance)
    assert len(found["scores"]) == len(theirs_results[2]["scores"]) > 0
    for name, value in theirs_results[2].items():
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_detector_is_torchvisions(name):
    options = {**SMALL, "num_classes": 5, **without_weights(name), **few_boxes(name)}
    if "rcnn" in name:
        options["box_score_thresh"] = 0.0
    else:
        options["score_thresh"] = 0.0
    torch.manual_seed(0)
    theirs = randomise(getattr(detection, name)(**options))
    model = getattr(ours, name)(**options)
    assert list(model.state_dict()) == list(theirs.state_dict())
    model.load_state_dict(theirs.state_dict())
    wanted = [parameter.requires_grad for parameter in theirs.parameters()]
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert_same_detector(model, theirs)


@pytest.mark.parametrize(
    ("name", "dcn"), [*((name, False) for name in NAMES), ("maskrcnn_resnet50_fpn", True), (NAMES[-1], True)]
)
def test_detectors_weights(name, dcn, monkeypatch):
    """torchvision's files, eps of its version 1 included; deformable stages start as the plain ones."""
    recipe = ours._RECIPES[name]
    weights = recipe.weights.DEFAULT
    torch.manual_seed(0)
    source = randomise(getattr(detection, name)(weights=None, **without_weights(name), **classes(recipe, weights)))
    with torch.no_grad():  # variances beside which an epsilon of 1e-5 counts
        for layer in source.backbone.modules():
            if hasattr(layer, "running_var"):
                layer.running_var.mul_(1e-4)
                layer.weight.mul_(1e-2)
    monkeypatch.setattr(recipe.weights, "get_state_dict", lambda *_, **__: dict(source.state_dict()))
    monkeypatch.setattr(sources, "resolve", lambda member: (source.state_dict(), member.name))
    theirs = getattr(detection, name)(weights=weights, **SMALL)
    stages = {"dcn_stages": (False, False, True, True)} if dcn else {}
    model = getattr(ours, name)(weights="DEFAULT", **SMALL, **stages)
    assert sum(isinstance(layer, DFConv2d) for layer in model.modules()) == (9 if dcn else 0)
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        wanted, got = theirs.double().eval().backbone(image), model.double().eval().backbone(image)
    for level, value in wanted.items():
        assert_near(got[level], value, level, 1e-4 if recipe.version == 1 else 1e-9)  # float32 variances
    heads = {key: value for key, value in theirs.state_dict().items() if not key.startswith("backbone.")}
    for key, value in heads.items():
        assert torch.equal(model.state_dict()[key], value), key
    trained = [name for name, parameter in theirs.named_parameters() if parameter.requires_grad]
    plain = [
        name.replace("conv2.conv.", "conv2.")
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".offset." not in name
    ]
    assert plain == trained


def classes(recipe, weights):
    counts = {"num_classes": len(weights.meta["categories"])}
    if "keypoint_names" in weights.meta:
        counts["num_keypoints"] = len(weights.meta["keypoint_names"])
    return counts


@pytest.mark.parametrize("trainable", [None, 0, 2, 5])
def test_backbones_weights_and_trained_layers(trainable, monkeypatch):
    from torchvision.models import ResNet50_Weights, resnet50

    classifier = randomise(resnet50())
    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", lambda *_, **__: dict(classifier.state_dict()))
    theirs = detection.maskrcnn_resnet50_fpn(trainable_backbone_layers=trainable, num_classes=5)
    model = ours.maskrcnn_resnet50_fpn(
        weights_backbone=classifier.state_dict(), trainable_backbone_layers=trainable, num_classes=5
    )
    assert list(model.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.backbone.body.state_dict().items():
        assert torch.equal(model.backbone.body.state_dict()[key], value), key
    wanted = {name: parameter.requires_grad for name, parameter in theirs.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == wanted
    assert any(isinstance(layer, FrozenBatchNorm2d) for layer in model.modules())


def test_weights_of_a_file(tmp_path):
    source = randomise(detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3))
    torch.save({"model": source.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    for weights in (tmp_path / "checkpoint.pth", str(tmp_path / "checkpoint.pth"), source.state_dict()):
        model = ours.maskrcnn_resnet50_fpn(weights=weights, num_classes=3)
        for key, value in model.state_dict().items():
            assert torch.equal(value, source.state_dict()[key]), key
    with pytest.raises(ValueError, match="nowhere.pth"):
        ours.maskrcnn_resnet50_fpn(weights="nowhere.pth")


@pytest.mark.parametrize("name", NAMES)
def test_other_backbones_train(name):
    """Options of the backbone reach it, and the detector's class gets the rest."""
    options = {"backbone_name": "resnet18", "width": 16, "fpn_channels": 32, "norm_layer": "gn", "in_channels": 4}
    statistics = {"image_mean": [0.5] * 4, "image_std": [0.3] * 4}
    dcn = {"dcn_stages": (False, False, True, True), "modulated": False, "deformable_groups": 2}
    model = getattr(ours, name)(
        **options, **dcn, **statistics, min_size=160, num_classes=3, **few_boxes(name), **without_weights(name)
    )
    assert model.backbone.out_channels == 32
    assert sum(isinstance(layer, DFConv2d) for layer in model.modules()) == 4
    assert not any(isinstance(it, nn.BatchNorm2d) for it in model.backbone.body.modules())
    target = {**TARGET, "boxes": TARGET["boxes"].float()}
    losses = model.train()([torch.rand(4, 64, 96)], [target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    offset = next(layer for layer in model.modules() if isinstance(layer, DFConv2d)).offset
    assert offset.weight.grad.any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": "COCO_V1", "num_classes": 3}, ValueError, "num_classes is 3; it must be 91"),
        ({"weights": "COCO_V7"}, KeyError, "COCO_V7"),
        ({"trainable_backbone_layers": 6}, ValueError, "trainable_backbone_layers is 6; it must be 0 to 5"),
        ({"in_channels": 5}, ValueError, "image_mean is None; it must have in_channels = 5 values"),
        ({"norm_layer": "ln"}, KeyError, "unknown norm_layer 'ln'; allowed are bn, frozen_bn, gn, sync_bn"),
        ({"dcn_stage": (True,)}, TypeError, "there is no argument 'dcn_stage'; allowed are .* dcn_stages, "),
        ({"num_classes": 0}, ValueError, "num_classes is 0; it must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        ours.maskrcnn_resnet50_fpn(**{"weights_backbone": None, **options})


def test_options_of_the_transform_are_handed_on():
    """torchvision's references give the first."""
    options = {"_skip_resize": True, "size_divisible": 64, "fixed_size": (96, 128)}
    model = ours.maskrcnn_resnet50_fpn(weights_backbone=None, num_classes=2, **options)
    transform = model.transform
    assert (transform._skip_resize, transform.size_divisible, transform.fixed_size) == (True, 64, (96, 128))


def test_trained_layers_without_weights_warn():
    with pytest.warns(UserWarning, match="trainable_backbone_layers is 2, but without weights all layers are trained"):
        model = ours.fcos_resnet50_fpn(weights_backbone=None, trainable_backbone_layers=2, num_classes=2)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_without_torchvision_the_error_says_what_to_install():
    code = "import sys; sys.modules['torchvision'] = None\nimport resnet_cuda.integrations.torchvision"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert "ImportError: resnet_cuda.integrations.torchvision needs torchvision: pip install" in ended.stderr
