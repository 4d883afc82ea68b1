"""Samples with boxes alone, and with keypoints."""

from __future__ import annotations

import warnings

import pytest
from detection.data.coco_dataset import CocoInstances, DamagedSampleError

NAN = float("nan")


def target_of(dataset):
    """The target of the only image, read without any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dataset[0][1]


def test_boxes(make_coco, square):
    annotations = [
        {"bbox": [1, 2, 5, 6]},
        {"bbox": [15.5, 10, 10, 10]},  # cut to the image
        {"segmentation": square},  # no bbox: the segmentation's
        {"bbox": [1, 2, 0, 6]},
        {"bbox": [25, 2, 4, 4]},  # beside the image
        {"bbox": [3, 3, 4, 4], "segmentation": [["rubbish"]], "iscrowd": 1},  # not needed, so not looked at
    ]
    target = target_of(CocoInstances(*make_coco(annotations), targets="boxes"))
    assert target["boxes"].tolist() == [[1, 2, 6, 8], [15.5, 10, 20, 16], [2, 3, 12, 9], [3, 3, 7, 7]]
    assert target["area"].tolist() == [30, 27, 60, 16]
    assert target["iscrowd"].tolist() == [0, 0, 0, 1]
    assert (target["skipped"], target["dropped"]) == (0, 2)
    assert "masks" not in target


DAMAGED_BOXES = {
    "neither": ({}, "no segmentation and no bbox"),
    "three": ({"bbox": [1, 2, 3]}, r"its bbox is \[1, 2, 3\]; it must be four numbers"),
    "text": ({"bbox": [1, 2, "3", 4]}, "must be four numbers"),
    "nan": ({"bbox": [1, 2, NAN, 4]}, "must be four numbers"),
    "bool": ({"bbox": [1, 2, True, 4]}, "must be four numbers"),
    "huge": ({"bbox": [1, 2, 10**400, 4]}, "must be four numbers"),
    "negative": ({"bbox": [1, 2, -3, 4]}, "its bbox has the width -3 and the height 4"),
    "far": ({"bbox": [1, 2, 1e9, 4]}, "is far outside the image of 20 x 16 pixels"),
    "an object": ({"bbox": {"x": 1}}, "must be four numbers"),
}


@pytest.mark.parametrize("name", DAMAGED_BOXES)
def test_damaged_boxes(make_coco, name):
    entry, reason = DAMAGED_BOXES[name]
    with pytest.raises(DamagedSampleError, match=rf"one\.png: annotation 4 in .*{reason}"):
        CocoInstances(*make_coco([{"id": 4, **entry}]), targets="boxes")[0]


PERSON = [{"id": 5, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"]}]


def test_keypoints(make_coco):
    annotations = [
        {"bbox": [1, 2, 10, 8], "keypoints": [3, 4, 2, 5.5, 6, 1, 7, 7, 0], "num_keypoints": 2},
        {"bbox": [2, 2, 10, 8], "keypoints": [0] * 9, "num_keypoints": 0},
        {"bbox": [3, 2, 10, 8], "num_keypoints": 0},
        {"bbox": [4, 2, 10, 8], "keypoints": [0] * 9, "num_keypoints": 0, "iscrowd": 1},
    ]
    dataset = CocoInstances(*make_coco(annotations, categories=PERSON), targets="keypoints")
    target = target_of(dataset)
    assert dataset.keypoint_names() == ["nose", "left_eye", "right_eye"]
    assert target["keypoints"].shape == (4, 3, 3)
    assert target["keypoints"][0].tolist() == [[3, 4, 2], [5.5, 6, 1], [0, 0, 0]]
    assert not target["keypoints"][1:].any()
    assert target["iscrowd"].tolist() == [0, 0, 0, 1]
    assert "masks" not in target


@pytest.mark.parametrize(
    ("keypoints", "reason"),
    [
        ([1, 2, 2], "are 3 values; they must be 9, x, y and visibility of 3"),
        (None, "are None; they must be 9"),
        ([1, 2, 2] * 2 + [1, "2", 2], "are not all numbers"),
        ([1, 2, 2] * 2 + [1, NAN, 2], "are not all numbers"),
        ([1, 2, 2] * 2 + [1, 2, 3], "visibility of a keypoint is none of 0, 1, 2"),
        ([1, 2, 2] * 2 + [1, 2e9, 2], "a keypoint is far outside the image"),
    ],
)
def test_damaged_keypoints(make_coco, keypoints, reason):
    annotation = {"id": 4, "bbox": [1, 2, 10, 8], "keypoints": keypoints, "num_keypoints": 3}
    with pytest.raises(DamagedSampleError, match=rf"one\.png: annotation 4 in .*{reason}"):
        CocoInstances(*make_coco([annotation], categories=PERSON), targets="keypoints")[0]
