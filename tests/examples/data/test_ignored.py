"""What is left out but stands on an object: an evaluation must not count its detection as a mistake."""

from __future__ import annotations

import warnings

import pytest
import torch
from detection.data.coco_dataset import CocoInstances
from detection.data.loader import evaluation_loader, training_loader
from detection.data.transforms import AUGMENTATIONS, make_transforms

CATEGORIES = [{"id": 5, "name": "thing"}, {"id": 8, "name": "other"}]
BROKEN = [[1, 2, 3, 4, 5, 6, 7]]
FLAT = [[1, 4, 9, 4, 15, 4]]


def open_skipping(make_coco, annotations, **options):
    return CocoInstances(*make_coco(annotations, categories=CATEGORIES), damaged="skip", **options)


def quiet(function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


def test_boxes_and_labels_of_what_is_left_out(make_coco, square):
    annotations = [
        {"segmentation": square, "bbox": [2, 3, 10, 6]},
        {"segmentation": BROKEN, "bbox": [4, 5, 6, 7], "category_id": 8.0},
        {"segmentation": BROKEN, "bbox": [-1, 5, 6.5, 12], "category_id": 5},  # to 2 pixels beyond: cut
        {"segmentation": [[]], "bbox": [1, 1, 0.5, 4]},
        {"segmentation": FLAT, "bbox": [1, 3, 14, 2]},  # without area, of at least a pixel
        {"segmentation": FLAT, "bbox": [1, 4, 14, 0.5]},
        {"segmentation": FLAT, "bbox": [1, 4, 14, 0]},
        {"segmentation": BROKEN, "bbox": [4, 5, 6, 7], "category_id": 99},
        {"segmentation": BROKEN, "bbox": [4, 5, 600, 7]},
        {"segmentation": BROKEN, "bbox": [4, 5, -6, 7]},
        {"segmentation": BROKEN, "bbox": [4, 5, float("nan"), 7]},
        {"segmentation": BROKEN},
    ]
    target = quiet(lambda: open_skipping(make_coco, annotations).read(0)[1])
    assert target["boxes"].tolist() == [[2, 3, 12, 9]]
    assert target["ignored_boxes"].tolist() == [[4, 5, 10, 12], [0, 5, 5.5, 16], [1, 1, 1.5, 5], [1, 3, 15, 5]]
    assert target["ignored_labels"].tolist() == [2, 1, 1, 1]
    assert (target["ignored_boxes"].dtype, target["ignored_labels"].dtype) == (torch.float32, torch.int64)
    assert (target["skipped"], target["dropped"]) == (8, 3)


def test_there_is_always_an_entry(coco):
    target = CocoInstances(*coco)[0][1]
    assert (target["ignored_boxes"].shape, target["ignored_labels"].shape) == ((0, 4), (0,))


def test_an_evaluation_has_them_and_training_has_not(make_coco, square):
    annotations = [{"segmentation": square}, {"segmentation": BROKEN, "bbox": [4, 5, 6, 7]}]
    dataset = open_skipping(make_coco, annotations)
    ((_, _, target),) = quiet(lambda: next(iter(evaluation_loader(dataset, workers=0, targets="masks"))))
    assert target["ignored_boxes"].tolist() == [[4, 5, 10, 12]]
    transforms = make_transforms(list(AUGMENTATIONS))
    loader = training_loader(dataset, transforms, batch=1, workers=0, seed=0, targets="masks")
    _, (target,) = quiet(lambda: next(iter(loader)))
    assert not {"ignored_boxes", "ignored_labels"} & target.keys()


@pytest.mark.parametrize("segmentation", [[[]], [], None, [[1, 2, 3, 4]], [[2, 3, 10, 6]]])
def test_a_bbox_without_a_mask_is_damaged_not_dropped(make_coco, square, segmentation):
    annotations = [{"segmentation": square}, {"segmentation": segmentation, "bbox": [2, 3, 10, 6]}]
    dataset = open_skipping(make_coco, annotations)
    with pytest.warns(UserWarning, match="it has no segmentation"):
        target = dataset.read(0)[1]
    assert (target["skipped"], target["dropped"], len(target["ignored_boxes"])) == (1, 0, 1)
