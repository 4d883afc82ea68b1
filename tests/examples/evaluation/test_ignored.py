"""Where a damaged annotation was left out, a detection of its class is neither right nor wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from coco_situations import DAMAGED, Oracle, mask_of, with_annotation, write
from detection.data.coco_dataset import CocoInstances
from detection.evaluation.confusion import confusion_matrix
from detection.evaluation.evaluate import evaluate
from detection.evaluation.pictures import draw_worst
from detection.evaluation.worst import worst_images
from evaluation_samples import CPU, InMemory, options_for, perfect, sample_of, score
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn

SIZE = (80, 100)
BOXES = [(4, 4, 30, 30), (60, 10, 30, 40)]


def one_skipped(targets: str = "masks", images: int = 2) -> tuple[InMemory, dict]:
    """Two objects in each image, of which the second was left out; and the whole truth by image id."""
    samples, whole = [], {}
    for number in range(images):
        image, target = sample_of(number, SIZE, BOXES, [1, 2])
        if targets == "keypoints":
            del target["masks"]
            x, y = target["boxes"][:, None, 0], target["boxes"][:, None, 1]
            at = torch.tensor([2.0, 8.0, 15.0, 20.0, 28.0])
            target["keypoints"] = torch.stack([x + at, y + at, torch.full((2, 5), 2.0)], dim=-1)
        left = {name: value[:1] for name, value in target.items()}
        regions = {"ignored_boxes": target["boxes"][1:], "ignored_labels": target["labels"][1:]}
        samples.append((image, {**left, **regions, "image_id": number, "skipped": 1}))
        whole[number] = target
    return InMemory(samples), whole


@pytest.mark.parametrize("targets", ["masks", "boxes", "keypoints"])
def test_a_right_detection_of_a_skipped_annotation_is_not_false(targets):
    dataset, whole = one_skipped(targets)
    # The detection of what was left out is the surer one: were it false, the precision would be 1/2.
    report = score(dataset, lambda it: {**perfect(whole[it["image_id"]]), "scores": torch.tensor([0.8, 0.9])}, targets)
    for kind, metrics in report.metrics.items():
        assert metrics["AP"] == pytest.approx(1), kind
        assert metrics.get("AR_20" if kind == "keypoints" else "AR_100") == pytest.approx(1), kind
        assert report.per_class[kind]["bar"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1), "objects": 2}
        assert report.per_class[kind]["square"] == {"AP": -1, "AP50": -1, "objects": 0}
    assert (report.ignored_regions, report.skipped_annotations) == (2, 2)
    assert report.as_dict()["ignored_regions"] == 2
    assert report.table().splitlines()[-1] == "images: 2, skipped annotations: 2, ignored regions: 2"


def test_of_one_class_the_detection_there_does_not_lower_the_precision():
    """The finding: two objects of a class, one skipped, both found gave an AP of 0.5."""
    dataset, whole = one_skipped(images=1)
    for target in (dataset.samples[0][1], whole[0]):
        target["labels"] = torch.ones_like(target["labels"])
    dataset.samples[0][1]["ignored_labels"] = torch.tensor([1])

    def both(target):
        return {**perfect(whole[0]), "scores": torch.tensor([0.8, 0.9])}

    for metrics in score(dataset, both).metrics.values():
        assert metrics["AP"] == pytest.approx(1)
    del dataset.samples[0][1]["ignored_boxes"], dataset.samples[0][1]["ignored_labels"]
    unknown = score(dataset, both)
    assert unknown.metrics["bbox"]["AP"] == pytest.approx(0.5)  # nothing is known of its place
    assert unknown.ignored_regions == 0 and "ignored" not in unknown.table()


def test_a_detection_elsewhere_is_still_false():
    dataset, whole = one_skipped()

    def elsewhere(target):
        found = perfect(whole[target["image_id"]])
        found["labels"] = torch.tensor([1, 1])  # not the class of what was left out
        return {**found, "scores": torch.tensor([0.8, 0.9])}

    for metrics in score(dataset, elsewhere).metrics.values():
        assert metrics["AP"] == pytest.approx(0.5)


@pytest.mark.parametrize("by", ["bbox", "segm"])
def test_neither_confused_nor_among_the_worst(by):
    dataset, whole = one_skipped()
    report = score(dataset, lambda it: perfect(whole[it["image_id"]]), keep_results=True)
    matrix = confusion_matrix(report.records, 3, by=by)
    assert matrix.sum() == matrix[0, 0] == 2
    assert worst_images(report.records, 5, by=by) == []


def test_the_region_is_the_box_as_a_mask_and_no_detection():
    dataset, _ = one_skipped(images=1)
    target = dataset.samples[0][1]
    target["ignored_boxes"] = torch.tensor([[60.5, 10.2, 120.0, 49.5]])  # beyond the image's right side
    report = score(dataset, keep_results=True)
    (record,) = report.records
    mask = coco_mask.decode([record.truth.masks[1]])[..., 0]
    assert mask.sum() == mask[10:50, 60:].sum() == 40 * 40
    assert record.ignored == 1
    assert len(report.results) == 1


def test_the_picture_says_ignored(tmp_path):
    dataset, _ = one_skipped(images=1)
    report = score(dataset, lambda it: {name: value[:0] for name, value in perfect(it).items()}, keep_results=True)
    (path,) = draw_worst(tmp_path, dataset, report.records, dataset.names)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    grey, orange = ((np.abs(pixels - colour).max(axis=-1) <= 3).sum() for colour in ((127, 127, 127), (255, 127, 14)))
    assert grey > 500 and orange > 500
    assert json.dumps(report.as_dict())


class Finding(nn.Module):
    """What ``oracle`` finds, and in image two.png one more object of label 1, the surest of all."""

    def __init__(self, oracle: nn.Module, image: torch.Tensor):
        super().__init__()
        self.oracle, self.image = oracle, image

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        (found,) = self.oracle(images)
        if torch.equal(images[0], self.image):
            mask = torch.from_numpy(mask_of(10, 10, 20, 20))[None, None].float()
            more = {"boxes": torch.tensor([[10.0, 10, 30, 30]]), "labels": torch.tensor([1])}
            more |= {"scores": torch.tensor([1.0]), "masks": mask}
            found = {name: torch.cat([value, more[name].to(value.dtype)]) for name, value in found.items()}
        return [found]


@pytest.mark.parametrize(("name", "known"), [("a coordinate is NaN", True), ("an unknown category", False)])
@pytest.mark.filterwarnings("ignore:skipped")
def test_from_a_json_file(tmp_path, name, known):
    """The whole way; where the class is unknown, too, nothing can be ignored."""
    images, annotations = write(tmp_path, with_annotation(DAMAGED[name]))
    dataset = CocoInstances(images, annotations, "skip")
    model = Finding(Oracle(images, ()), dataset.read(1)[0])
    report = evaluate(model, dataset, CPU, options=options_for(names=tuple(dataset.class_names())))
    assert (report.skipped_annotations, report.ignored_regions) == (1, int(known))
    for kind in ("bbox", "segm"):
        assert (report.metrics[kind]["AP"] > 0.999) is known, kind
