"""torchvision's detectors themselves, as the trainer builds them, instead of detectors that know the answers."""

from __future__ import annotations

import pytest
import torch
from detection.evaluation.confusion import confusion_matrix
from detection.evaluation.evaluate import evaluate
from detection.evaluation.worst import worst_images
from detection.models.build import build_model
from detection.models.options import ModelOptions
from evaluation_samples import CPU, NAMES, InMemory, random_samples

KINDS = {
    "maskrcnn": ["bbox", "segm"],
    "fasterrcnn": ["bbox"],
    "keypointrcnn": ["bbox", "keypoints"],
    "retinanet": ["bbox"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_detector_is_scored_by_what_it_gives(kind):
    """It detects much, all of it wrong or by chance: every number is a proper one, and nothing fails."""
    torch.manual_seed(0)
    options = ModelOptions(
        class_names=NAMES,
        keypoint_names=("head", "foot") if kind == "keypointrcnn" else (),
        kind=kind,
        backbone="resnet18",
        dcn_stages=(False,) * 4,
        width=8,
        fpn_channels=8,
        head_channels=8,
        min_size=96,
        max_size=128,
        proposals=50,
    )
    samples = random_samples(1, images=4)
    for _, target in samples:
        corners = target["boxes"].reshape(-1, 2, 2)
        target["keypoints"] = torch.cat([corners, torch.ones(len(corners), 2, 1)], dim=2)
    dataset = InMemory(samples)
    report = evaluate(build_model(options), dataset, CPU, options=options, keep_results=True)
    assert list(report.metrics) == KINDS[kind]
    for metrics in report.metrics.values():
        assert all(value == -1 or 0 <= value <= 1 for value in metrics.values())
        assert metrics["AP"] >= 0
    assert {it["image_id"] for it in report.results} <= {target["image_id"] for _, target in samples}
    objects = sum(int((target["iscrowd"] == 0).sum()) for _, target in samples)
    assert confusion_matrix(report.records, len(NAMES), score=0)[: len(NAMES)].sum() == objects
    assert len(worst_images(report.records, 3)) == 3
