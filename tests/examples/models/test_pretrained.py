"""Trained weights into the four detectors: all of the same classes, all but the last layers of others."""

from __future__ import annotations

import copy

import pytest
import torch
from detection.models.build import build_model
from detection.models.options import KINDS
from detection.models.pretrained import load_pretrained
from pretrained_support import PREDICTORS, published

WRAPPINGS = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "references": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    "Lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 1},
    "references, distributed": lambda state: {
        "model": {f"module.{key}": value for key, value in state.items()},
        "epoch": 1,
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_file_of_torchvisions_mask_rcnn(wrapping, plain, theirs, assert_same_outputs, tmp_path):
    other = theirs()
    torch.save(WRAPPINGS[wrapping](other.state_dict()), tmp_path / "detector.pth")
    model = build_model(plain())
    text = load_pretrained(model, plain(), str(tmp_path / "detector.pth"))
    assert text == f"{tmp_path / 'detector.pth'} (torchvision): loaded backbone.body, backbone.fpn, rpn, roi_heads"
    assert_same_outputs(model, other)


@pytest.mark.parametrize("keys", ["published", "present"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_torchvisions_results(kind, keys, plain, theirs, assert_same_outputs):
    """Those with the keys of the published files are of epsilon 0, as torchvision sets it for its COCO_V1."""
    other = theirs(kind, eps=0.0 if keys == "published" else 1e-5)
    state = published(other.state_dict()) if keys == "published" else other.state_dict()
    model = build_model(plain(kind))
    text = load_pretrained(model, plain(kind), state)
    assert "\n" not in text
    assert "new" not in text
    assert_same_outputs(model, other)


def test_a_published_model_that_was_saved_again_needs_its_epsilon(plain, theirs, assert_same_outputs):
    other = copy.deepcopy(theirs("fasterrcnn", eps=0.0))
    for module in other.modules():
        if hasattr(module, "running_var"):
            module.running_var *= 1e-4  # where it matters
            module.weight.data *= 1e-2
    model = build_model(plain("fasterrcnn"))
    load_pretrained(model, plain("fasterrcnn"), other.state_dict(), eps=0.0)
    assert_same_outputs(model, other)
    load_pretrained(model, plain("fasterrcnn"), other)  # a module tells its epsilon itself
    assert_same_outputs(model, other)
    load_pretrained(model, plain("fasterrcnn"), other.state_dict())
    with pytest.raises(AssertionError):
        assert_same_outputs(model, other)


@pytest.mark.parametrize("kind", KINDS)
def test_other_classes_get_new_predictors(kind, plain, theirs):
    other = theirs(kind, classes=5)
    options = plain(kind)
    model = build_model(options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    text = load_pretrained(model, options, published(other.state_dict()))
    after, state = model.state_dict(), other.state_dict()
    fresh = {key for key in after if key.startswith(tuple(PREDICTORS[kind]))}
    assert fresh
    for key, value in after.items():
        if key in fresh:
            assert torch.equal(value, before[key]), key
        elif ".bn" not in key and "downsample.1" not in key:  # whose epsilon is another
            assert torch.equal(value, state[key]), key
    assert text.splitlines()[1] == f"new for your 3 classes: {', '.join(PREDICTORS[kind])}"


def test_other_keypoints_get_a_new_predictor(plain, theirs):
    options = plain("keypointrcnn", classes=2)
    options = type(options).from_dict(options.as_dict() | {"keypoint_names": ["one", "other"]})
    text = load_pretrained(build_model(options), options, theirs("keypointrcnn", classes=2).state_dict())
    assert text.splitlines()[1] == "new for your 2 keypoints: roi_heads.keypoint_predictor"


def test_into_a_deformable_model(plain, theirs, assert_same_outputs):
    """Its offsets start at 0 and its masks are compensated, so that it begins as the plain network."""
    other = theirs()
    options = plain(dcn_stages=(False, True, True, True))
    model = build_model(options)
    text = load_pretrained(model, options, other.state_dict())
    assert text.splitlines()[1] == "the offsets of 13 deformable layers are new"
    assert_same_outputs(model, other)


def test_into_another_kind(plain, theirs):
    options = plain("fasterrcnn")
    model, other = build_model(options), theirs("maskrcnn")
    text = load_pretrained(model, options, other.state_dict())
    assert text.splitlines() == [
        "state dict (torchvision): loaded backbone.body, backbone.fpn, rpn, roi_heads",
        "not needed: roi_heads.mask_head, roi_heads.mask_predictor",
    ]
    options = plain("maskrcnn", classes=2)
    text = load_pretrained(build_model(options), options, model.state_dict())
    assert text.splitlines() == [
        "state dict (torchvision): loaded backbone.body, backbone.fpn, rpn, roi_heads.box_head",
        "new for your 2 classes: roi_heads.box_predictor, roi_heads.mask_predictor.mask_fcn_logits; "
        "new: roi_heads.mask_head, roi_heads.mask_predictor.conv5_mask",
    ]


def test_other_anchors_and_another_box_head(plain, theirs):
    options = plain(anchor_ratios=(0.5, 1.0), head_channels=32)
    text = load_pretrained(build_model(options), options, theirs().state_dict())
    assert "new for your 3 classes: roi_heads.box_predictor; new: rpn.head.cls_logits, rpn.head.bbox_pred, " in text
    assert "roi_heads.box_head" in text.splitlines()[1]


def test_a_classifier_fills_the_body(plain):
    from torchvision.models import resnet50

    options, classifier = plain(), resnet50()
    model = build_model(options)
    text = load_pretrained(model, options, {"state_dict": classifier.state_dict()})
    assert text == "state dict (torchvision): loaded backbone.body\nnew: backbone.fpn, rpn, roi_heads"
    assert torch.equal(model.backbone.body.layer3[2].conv2.weight, classifier.layer3[2].conv2.weight)


@pytest.mark.parametrize("library", ["detectron2", "mmdetection", "maskrcnn-benchmark", "caffe2"])
@pytest.mark.filterwarnings("error")
def test_files_of_other_libraries(library, narrow, tmp_path):
    """Their pixels become torchvision's."""
    from helpers.networks import randomise

    import resnet_cuda
    from resnet_cuda.weights.convert import convert_file

    source = randomise(resnet_cuda.resnet_fpn_backbone("resnet50", width=8, fpn_channels=8))
    convert_file(source, tmp_path / "other.pkl", library, pixels="caffe2" if library == "caffe2" else library)
    options = narrow(backbone="resnet50", dcn_stages=(False, False, False, False))
    model = build_model(options)
    text = load_pretrained(model, options, tmp_path / "other.pkl")
    assert f"other.pkl ({library}): loaded backbone.body, backbone.fpn\nnew: rpn, roi_heads" in text
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = source(image), model.backbone(image)
    for name, level in expected.items():
        torch.testing.assert_close(found[name], level, rtol=0, atol=1e-5)


def test_what_only_a_person_can_know_is_a_line(narrow):
    """detectron2's ResNet-50 mostly strides elsewhere, and no key tells."""
    import resnet_cuda
    from resnet_cuda.weights.convert import convert

    source = resnet_cuda.resnet_fpn_backbone("resnet50", width=8, fpn_channels=8)
    content = {"model": convert(source, "detectron2").weights}
    options = narrow(backbone="resnet50", dcn_stages=(False, False, False, False))
    lines = load_pretrained(build_model(options), options, content).splitlines()
    assert lines[2].startswith("warning: stride: the model's bottlenecks stride in the 3x3; detectron2's ResNet-50")
    assert len(lines) == 3
