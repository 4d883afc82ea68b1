"""torchvision's own detectors, also from published files of version 1."""

from __future__ import annotations

import re

import pytest
import torch
from helpers.loading import assert_refused, assert_same_state
from helpers.networks import (
    narrow_fpn,
    randomise,
)

from resnet_cuda import load_weights


@pytest.fixture
def detection():
    return pytest.importorskip("torchvision.models.detection", reason="loads torchvision's detectors")


def published(state):
    """The keys of torchvision's published detectors of version 1."""
    rules = [
        (r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1."),
        (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
        (r"mask_head\.(\d)\.0\.", lambda match: f"mask_head.mask_fcn{int(match[1]) + 1}."),
        (
            r"(classification|regression)_head\.conv\.(\d)\.0\.",
            lambda match: f"{match[1]}_head.conv.{2 * int(match[2])}.",
        ),
    ]
    renamed = {}
    for key, value in state.items():
        for pattern, by in rules:
            key = re.sub(pattern, by, key)
        renamed[key] = value
    return renamed


BUILDERS = ["maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn"]


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("version", [1, 2])
def test_torchvisions_detectors_load_whole(builder, version, detection):
    build = getattr(detection, builder)
    theirs = randomise(build(weights=None, weights_backbone=None))
    model = build(weights=None, weights_backbone=None)
    state = theirs.state_dict()
    report = load_weights(model, published(state) if version == 1 else state)
    assert not report.missing
    assert not report.unexpected
    own = model.state_dict()
    for key, value in state.items():
        if version == 1 and key.endswith(("running_var",)):
            torch.testing.assert_close(own[key] + 1e-5, value)  # their epsilon is 0
        elif not (version == 1 and key.endswith("weight") and "bn" in key):
            assert torch.equal(own[key], value), key


@pytest.mark.parametrize("builder", ["fcos_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2"])
def test_torchvisions_newer_detectors_load_whole(builder, detection):
    build = getattr(detection, builder)
    theirs = randomise(build(weights=None, weights_backbone=None))
    model = build(weights=None, weights_backbone=None)
    report = load_weights(model, theirs.state_dict())
    assert not (report.missing or report.unexpected)
    assert_same_state(model, theirs.state_dict() | {k: v for k, v in model.state_dict().items() if "num_batches" in k})


def test_a_head_for_other_classes_does_not_fit(detection):
    def build(classes):
        return detection.FasterRCNN(narrow_fpn(), classes)

    state = randomise(build(5)).state_dict()
    assert_refused(build(3), state, r"of another shape: roi_heads.box_predictor.cls_score.weight \(5, 1024\) for")
    model = build(3)
    report = load_weights(model, state, strict=False)
    assert len(report.missing) == len(report.unexpected) == 4
    assert torch.equal(model.backbone.body.conv1.weight, state["backbone.body.conv1.weight"])
