"""Weights of this program's own checkpoints: the average, and classes and keypoints by their names."""

from __future__ import annotations

import pytest
import torch
from detection.models.build import build_model
from detection.models.options import KINDS
from detection.models.pretrained import load_pretrained
from pretrained_support import PREDICTORS


def own_checkpoint(model, options, **more):
    optimizer = torch.optim.AdamW([it for it in model.parameters() if it.requires_grad])
    sum(it.sum() for it in model.parameters() if it.requires_grad).backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "iteration": 7,
        "options": options.as_dict(),
        "seed": 0,
        **more,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_this_program(kind, narrow, tmp_path):
    options = narrow(kind)
    trained = build_model(options)
    torch.save(own_checkpoint(trained, options), tmp_path / "checkpoint.pt")
    model = build_model(options)
    text = load_pretrained(model, options, tmp_path / "checkpoint.pt")
    assert "new" not in text
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_of_a_checkpoint_the_average_is_taken(narrow, tmp_path):
    options = narrow()
    trained = build_model(options)
    average = build_model(options).state_dict()
    torch.save(own_checkpoint(trained, options, ema=average), tmp_path / "checkpoint.pt")
    model = build_model(options)
    load_pretrained(model, options, tmp_path / "checkpoint.pt")
    for key, value in average.items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize("kind", ["maskrcnn", "retinanet"])
def test_classes_of_a_checkpoint_are_found_by_name(kind, narrow, sample):
    """Some of them in another order: the same boxes, masks and scores under the new labels."""
    options = narrow(kind, class_names=("a", "b", "c", "d"), norm="gn")
    trained = build_model(options)
    chosen = narrow(kind, class_names=("d", "b"), norm="gn")
    model = build_model(chosen)
    text = load_pretrained(model, chosen, own_checkpoint(trained, options))
    assert f"by the names of your classes {', '.join(PREDICTORS[kind])}" in text
    assert "new" not in text
    theirs, ours = trained.state_dict(), model.state_dict()
    pairs = [(0, 0), (4, 1), (2, 2)]
    if kind == "retinanet":
        key = "head.classification_head.cls_logits.weight"
        for there, here in pairs:
            assert torch.equal(ours[key].view(9, 3, 8, 3, 3)[:, here], theirs[key].view(9, 5, 8, 3, 3)[:, there])
    else:
        for there, here in pairs:
            for key in ("box_predictor.cls_score.weight", "mask_predictor.mask_fcn_logits.bias"):
                assert torch.equal(ours[f"roi_heads.{key}"][here], theirs[f"roi_heads.{key}"][there])
            key = "roi_heads.box_predictor.bbox_pred.weight"
            assert torch.equal(ours[key][4 * here : 4 * here + 4], theirs[key][4 * there : 4 * there + 4])


def test_as_many_classes_of_other_names_are_new(narrow):
    options, chosen = narrow(class_names=("a", "b")), narrow(class_names=("a", "c"))
    checkpoint = own_checkpoint(build_model(options), options)
    text = load_pretrained(build_model(chosen), chosen, checkpoint)
    assert text.splitlines()[1] == (
        "new for your 2 classes: roi_heads.box_predictor, roi_heads.mask_predictor.mask_fcn_logits"
    )


def test_keypoints_are_found_by_name(narrow):
    options = narrow("keypointrcnn")
    chosen = narrow("keypointrcnn", keypoint_names=("top", "left"))
    trained, model = build_model(options), build_model(chosen)
    text = load_pretrained(model, chosen, own_checkpoint(trained, options))
    assert "; by the names of your keypoints roi_heads.keypoint_predictor" in text
    theirs, ours = (it.roi_heads.keypoint_predictor.kps_score_lowres for it in (trained, model))
    assert torch.equal(ours.weight, theirs.weight[:, [2, 0]])
    assert torch.equal(ours.bias, theirs.bias[[2, 0]])
