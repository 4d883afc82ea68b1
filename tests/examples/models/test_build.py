"""The four detectors: torchvision's keys and shapes, training, evaluation."""

from __future__ import annotations

import pytest
import torch
from detection.models.build import build_model
from detection.models.options import KINDS, ModelOptions
from torchvision.models import detection

import resnet_cuda


@pytest.mark.parametrize(
    ("kind", "classes"), [("maskrcnn", 91), ("fasterrcnn", 91), ("keypointrcnn", 2), ("retinanet", 91)]
)
def test_the_defaults_are_torchvisions_model(kind, classes):
    """In keys, shapes and order; without deformable stages, for the classes and keypoints of COCO."""
    with torch.device("meta"):
        theirs = getattr(detection, f"{kind}_resnet50_fpn")(weights=None, weights_backbone=None)
        ours = build_model(
            ModelOptions(
                kind=kind,
                class_names=tuple(f"class {number}" for number in range(1, classes)),
                keypoint_names=tuple(f"point {number}" for number in range(17)),
                dcn_stages=(False,) * 4,
            )
        )
    expected = {key: value.shape for key, value in theirs.state_dict().items() if "num_batches" not in key}
    found = {key: value.shape for key, value in ours.state_dict().items()}
    assert list(found.items()) == list(expected.items())
    own, other = ours.transform, theirs.transform
    if kind != "keypointrcnn":  # which resizes to several sizes in training
        assert (own.min_size, own.max_size) == (other.min_size, other.max_size)
    generators = [getattr(it, "anchor_generator", None) or it.rpn.anchor_generator for it in (ours, theirs)]
    assert generators[0].sizes == generators[1].sizes
    assert generators[0].aspect_ratios == generators[1].aspect_ratios
    if kind == "retinanet":
        assert ours.topk_candidates == theirs.topk_candidates
    else:
        assert (ours.rpn._pre_nms_top_n, ours.rpn._post_nms_top_n) == (
            theirs.rpn._pre_nms_top_n,
            theirs.rpn._post_nms_top_n,
        )
        assert ours.roi_heads.fg_bg_sampler.batch_size_per_image == theirs.roi_heads.fg_bg_sampler.batch_size_per_image


LOSSES = {
    "fasterrcnn": {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"},
    "retinanet": {"classification", "bbox_regression"},
}
LOSSES["maskrcnn"] = LOSSES["fasterrcnn"] | {"loss_mask"}
LOSSES["keypointrcnn"] = LOSSES["fasterrcnn"] | {"loss_keypoint"}
OUTPUTS = {"maskrcnn": {"masks"}, "keypointrcnn": {"keypoints", "keypoints_scores"}}


@pytest.mark.parametrize("norm", ["frozen_bn", "gn"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_training_and_an_evaluation(kind, norm, narrow, sample):
    torch.manual_seed(0)
    model = build_model(narrow(kind, norm=norm))
    image, target = sample
    if norm == "frozen_bn":
        resnet_cuda.calibrate(model, [image])
    losses = model.train()([image], [target])
    assert set(losses) == LOSSES[kind]
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    for name in ("conv1.weight", "layer4.0.conv2.conv.weight", "layer4.0.conv2.offset.weight"):
        gradient = model.backbone.body.get_parameter(name).grad
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().sum() > 0, name
    torch.optim.SGD(model.parameters(), lr=1e-3).step()

    part = getattr(model.eval(), "roi_heads", model)
    part.score_thresh = 0.0
    with torch.no_grad():
        found = model([image])[0]
    assert set(found) == {"boxes", "labels", "scores"} | OUTPUTS.get(kind, set())
    assert len(found["boxes"])
    assert set(found["labels"].tolist()) <= {0, 1, 2}
    if kind == "maskrcnn":
        assert found["masks"].shape == (len(found["boxes"]), 1, 48, 64)
    if kind == "keypointrcnn":
        assert found["keypoints"].shape == (len(found["boxes"]), 3, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_without_objects_trains(kind, narrow, sample):
    torch.manual_seed(0)
    image, target = sample
    empty = {name: value[:0] for name, value in target.items()}
    losses = build_model(narrow(kind, norm="gn")).train()([image, image], [empty, target])
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(
    ("options", "layers"),
    [(None, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}), (2, {"layer3", "layer4"}), (0, set())],
)
def test_which_layers_are_trained(options, layers, narrow):
    body = build_model(narrow(norm="gn", trainable_layers=options)).backbone.body
    assert {name.split(".")[0] for name, it in body.named_parameters() if it.requires_grad} == layers


def test_retinanets_labels_are_those_of_the_sample(narrow, sample):
    """Labels 1 and 2 are classes 1 and 2 of its three: it learns to give them back, where they are."""
    torch.manual_seed(0)
    sizes = (16, 32, 64, 128, 256)
    model = build_model(narrow("retinanet", norm="gn", fpn_channels=32, anchor_sizes=sizes, dcn_stages=(False,) * 4))
    image, target = sample
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(90):
        optimizer.zero_grad()
        sum(model.train()([image], [target]).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        found = model.eval()([image])[0]
    certain = found["labels"][found["scores"] > 0.5].tolist()
    assert set(certain) == {1, 2}
    for label, box in zip(target["labels"], target["boxes"], strict=True):  # in the order of their scores
        torch.testing.assert_close(found["boxes"][found["labels"] == label][0], box, rtol=0, atol=5)


def test_several_sizes_are_used_in_training(narrow):
    transform = build_model(narrow(min_size=(32, 48, 64))).transform
    images = [torch.rand(3, 40, 40)]
    assert {transform.train()(images)[0].image_sizes[0][0] for _ in range(40)} == {32, 48, 64}
    assert transform.eval()(images)[0].image_sizes[0] == (64, 64)


def test_names_that_a_model_needs(narrow):
    with pytest.raises(ValueError, match="^class_names is empty; it must name at least one class$"):
        build_model(narrow(class_names=()))
    with pytest.raises(
        ValueError, match="^keypoint_names is empty; for keypointrcnn it must name at least one keypoint$"
    ):
        build_model(narrow("keypointrcnn", keypoint_names=()))


@pytest.mark.parametrize(("backbone", "width"), [("resnext50_32x4d", 16), ("resnet18d", 2), ("wide_resnet50_2", 1)])
def test_the_least_width_of_a_backbone_builds(backbone, width, narrow, sample):
    model = build_model(narrow(backbone=backbone, width=width, norm="gn"))
    assert all(torch.isfinite(loss) for loss in model.train()([sample[0]], [sample[1]]).values())
