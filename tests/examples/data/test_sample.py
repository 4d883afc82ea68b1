"""Samples of any data set, checked: what detectors would misread is named."""

from __future__ import annotations

import pytest
import torch
from detection.data.errors import DamagedSampleError
from detection.data.sample import checked
from torchvision.tv_tensors import BoundingBoxes, Image, Mask


def sample(count=2, **changes):
    target = {
        "boxes": torch.tensor([[1.0, 2.0, 5.0, 6.0]] * count).reshape(count, 4),
        "labels": torch.ones(count, dtype=torch.int64),
        "masks": torch.ones((count, 8, 10), dtype=torch.uint8),
        "keypoints": torch.ones((count, 3, 3)),
    }
    image = changes.pop("image", torch.full((3, 8, 10), 0.5))
    target.update(changes)
    return image, {key: value for key, value in target.items() if value is not None}


def test_types_are_made_right():
    boxes = torch.tensor([[1, 2, 5, 6]])
    given = sample(
        1,
        image=Image(torch.zeros(3, 8, 10, dtype=torch.float64)),
        boxes=BoundingBoxes(boxes, format="XYXY", canvas_size=(8, 10)),
        labels=torch.ones(1, dtype=torch.int32),
        masks=Mask(torch.ones((1, 8, 10), dtype=torch.bool)),
        iscrowd=torch.zeros(1, dtype=torch.uint8),
        area=torch.tensor([16], dtype=torch.float64),
        image_id=torch.tensor([7]),
        note="kept",
    )
    image, target = checked(given, "x", 1, "masks")
    assert (type(image), image.dtype) == (torch.Tensor, torch.float32)
    kinds = {key: value.dtype for key, value in target.items() if torch.is_tensor(value)}
    assert kinds == {
        "boxes": torch.float32,
        "labels": torch.int64,
        "masks": torch.uint8,
        "iscrowd": torch.int64,
        "area": torch.float32,
    }
    assert all(type(value) is torch.Tensor for value in target.values() if torch.is_tensor(value))
    assert target["image_id"] == 7
    assert target["note"] == "kept"


def test_only_what_the_targets_ask_for_stays():
    for targets in ("masks", "keypoints", "boxes"):
        _, target = checked(sample(), "x", 1, targets)
        assert target.keys() == {"boxes", "labels"} | ({targets} - {"boxes"})


def test_no_objects_in_any_empty_shape():
    empty = torch.tensor([])
    _, target = checked(sample(0, boxes=empty, labels=empty, masks=empty), "x", 1, "masks")
    assert target["boxes"].shape == (0, 4)
    assert (target["labels"].shape, target["labels"].dtype) == ((0,), torch.int64)
    assert target["masks"].shape == (0, 8, 10)


NAN = float("nan")
WRONG = {
    "label 0": ({"labels": torch.tensor([1, 0])}, "label 0 is none of 1 to 3"),
    "label 4": ({"labels": torch.tensor([4, 1])}, "label 4 is none of 1 to 3, the number of class_names"),
    "float labels": ({"labels": torch.ones(2)}, "labels are torch.float32 .*must be integers"),
    "labels' count": ({"labels": torch.ones(3, dtype=torch.long)}, r"of shape \(3,\); they must be integers \(2,\)"),
    "no labels": ({"labels": None}, "its target has no 'labels', only boxes, "),
    "list of labels": ({"labels": [1, 1]}, "its labels are <class 'list'>"),
    "no boxes": ({"boxes": None}, "its target has no 'boxes'"),
    "boxes' shape": ({"boxes": torch.ones(2, 5)}, r"boxes are of shape \(2, 5\)"),
    "width 0": ({"boxes": torch.tensor([[1.0, 1, 5, 5], [3, 1, 3, 5]])}, r"box 1 is \[3.0, 1.0, 3.0, 5.0\]"),
    "x y w h": ({"boxes": torch.tensor([[1.0, 1, 5, 5], [9, 1, 2, 5]])}, "it must be x1 y1 x2 y2 with x1 < x2"),
    "nan": ({"boxes": torch.tensor([[1.0, 1, 5, NAN], [1, 1, 2, 5]])}, "box 0 is"),
    "outside": ({"boxes": torch.tensor([[1.0, 1, 5, 5], [11, 1, 15, 5]])}, r"box 1, .* is not in the image of 10 x 8"),
    "beyond": ({"boxes": torch.tensor([[1.0, 1, 12.2, 5], [1, 1, 5, 5]])}, "box 0, .* reaches beyond the image of 10"),
    "no width": ({"boxes": torch.tensor([[1.0, 1, 1.0005, 5], [1, 1, 5, 5]])}, "box 0, .* is less than 0.001 pixels"),
    "no width inside": ({"boxes": torch.tensor([[-2, 1, 0.0005, 5], [1, 1, 5, 5]])}, "box 0, .* is less than 0.001"),
    "normalised": ({"boxes": torch.tensor([[0.1, 0.1, 0.5, 0.6]] * 2)}, "all its boxes lie within 0 and 1.*normalised"),
    "empty mask": ({"masks": torch.stack([torch.ones(8, 10), torch.zeros(8, 10)]).byte()}, "mask 1 is empty"),
    "no masks": ({"masks": None}, "its target has no 'masks'"),
    "masks' count": ({"masks": torch.ones(1, 8, 10).byte()}, r"shape \(1, 8, 10\); they must be \(2, 8, 10\)"),
    "masks' size": ({"masks": torch.ones(2, 10, 8).byte()}, r"shape \(2, 10, 8\); they must be \(2, 8, 10\)"),
    "masks of 255": ({"masks": torch.full((2, 8, 10), 255).byte()}, "masks have values other than 0 and 1"),
    "soft masks": ({"masks": torch.full((2, 8, 10), 0.5)}, "masks have values other than 0 and 1"),
    "crowd's count": ({"iscrowd": torch.zeros(1).long()}, "its iscrowd are"),
    "area's count": ({"area": torch.zeros(1)}, r"its area is of shape \(1,\)"),
    "two ids": ({"image_id": torch.tensor([1, 2])}, "image_id is of shape"),
    "bytes": ({"image": torch.zeros(3, 8, 10).byte()}, "its image is of torch.uint8; it must be floating"),
    "0..255": ({"image": torch.full((3, 8, 10), 255.0)}, "values from 255 to 255; they must be in 0..1"),
    "nan in the image": ({"image": torch.full((3, 8, 10), NAN)}, "values from nan to nan"),
    "channels last": ({"image": torch.zeros(8, 10, 3)}, r"of shape \(8, 10, 3\); it must be a tensor \(3, H, W\)"),
    "no pixels": ({"image": torch.zeros(3, 0, 10)}, r"of shape \(3, 0, 10\)"),
    "no tensor": ({"image": "x"}, "its image is <class 'str'>"),
    "ratio": (
        {"image": torch.zeros(3, 1, 200), "masks": torch.ones(2, 1, 200).byte()},
        "ratio of 200 to 1; at most 100",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name):
    changes, reason = WRONG[name]
    with pytest.raises(DamagedSampleError, match=rf"^sample 5: .*{reason}"):
        checked(sample(**changes), "sample 5", 3, "masks", max_ratio=100)


def test_boxes_may_reach_a_little_beyond_the_image():
    boxes = torch.tensor([[-2.0, -1, 12, 10], [0.2, 0.2, 0.9, 0.9]])
    assert checked(sample(boxes=boxes), "x", 3, "masks")[1]["boxes"].equal(boxes)


@pytest.mark.parametrize("number", [None, 3])
def test_keypoints_of_no_objects(number):
    for empty in (torch.zeros(0), torch.zeros(0, 3, 3), None):
        given = sample(0, labels=torch.zeros(0), keypoints=empty)
        points = checked(given, "x", 3, "keypoints", keypoints=number)[1]["keypoints"]
        assert points.dim() == 3 and len(points) == 0
        assert number is None or points.shape == (0, 3, 3)


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 9), (1, 3, 3)])
def test_keypoints_of_a_wrong_shape_are_named(shape):
    with pytest.raises(DamagedSampleError, match=r"x: its keypoints are of shape .* must be \(2, K, 3\)"):
        checked(sample(keypoints=torch.ones(shape)), "x", 3, "keypoints")
    with pytest.raises(DamagedSampleError, match="x: its keypoints have values that are not finite"):
        checked(sample(keypoints=torch.full((2, 3, 3), NAN)), "x", 3, "keypoints")


@pytest.mark.parametrize("value", [None, 5, (1, 2, 3), (torch.zeros(3, 8, 10), [1])])
def test_what_is_no_sample_is_named(value):
    with pytest.raises(DamagedSampleError, match=r"^x: it is .*; a sample must be \(image, target\)"):
        checked(value, "x", 3, "masks")
