"""Coordinates as fractions, and boxes in another order, are named instead of learnt."""

from __future__ import annotations

import numpy as np
import pytest
from detection.data.check import check
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError
from PIL import Image

POLYGON = [[0.1, 0.1, 0.6, 0.1, 0.6, 0.5, 0.1, 0.5]]


@pytest.mark.parametrize("damaged", ["refuse", "skip"])
@pytest.mark.parametrize(
    ("entries", "kinds"),
    [
        ([{"bbox": [0.1, 0.2, 0.3, 0.4]}] * 3, "boxes"),
        ([{"bbox": [0, 0, 1, 1]}, {"bbox": [0, 0, 0, 0]}], "boxes"),
        ([{"segmentation": POLYGON}], "polygons"),
        ([{"segmentation": POLYGON, "bbox": [0.1, 0.1, 0.5, 0.4]}], "boxes and polygons"),
        ([{"segmentation": POLYGON, "bbox": [2, 3, 10, 6]}], "polygons"),
    ],
)
def test_all_within_0_and_1_is_refused(make_coco, entries, kinds, damaged):
    with pytest.raises(ValueError, match=rf"instances\.json: all {kinds} lie within 0 and 1: .*normalised"):
        CocoInstances(*make_coco(entries), damaged=damaged)


@pytest.mark.parametrize(
    "entries",
    [
        [{"bbox": [0, 0, 1, 1]}, {"bbox": [3, 3, 5, 5]}],  # a small object
        [{"bbox": [0, 0, 0, 0], "segmentation": [[2, 3, 12, 3, 12, 9, 2, 9]]}],  # no boxes
        [{"bbox": None, "segmentation": {"size": [16, 20], "counts": [0, 1, 319]}}],
    ],
)
def test_pixels_are_not(make_coco, entries):
    CocoInstances(*make_coco(entries))


@pytest.mark.parametrize("stated", [{}, {"height": 1, "width": 1}])
def test_an_image_of_one_pixel(make_coco, stated):
    folder, path = make_coco([{"bbox": [0, 0, 1, 1]}], images=[{"id": 1, "file_name": "dot.png", **stated}])
    Image.fromarray(np.zeros((1, 1), dtype=np.uint8)).save(folder / "dot.png")
    assert CocoInstances(folder, path)[0][1]["boxes"].tolist() == [[0, 0, 1, 1]]


def test_boxes_beyond_the_image_are_counted(make_coco):
    inside = [{"bbox": [1, 1, 8, 8]}, {"bbox": [1, 1, 20, 8]}]  # the second by 1 pixel
    report = check(CocoInstances(*make_coco([*inside, {"bbox": [5, 6, 15, 14]}])), progress=False)
    assert (report.boxes, report.boxes_beyond, report.problems) == (3, 1, [])
    assert "1 boxes reach beyond the image by more than 2 pixels" in str(report)


def test_corners_instead_of_sides_are_pointed_out(make_coco, square):
    boxes = [{"bbox": [5, 6, 18, 14]}, {"bbox": [8, 2, 19, 9]}, {"bbox": [1, 1, 9, 9]}]  # x1 y1 x2 y2
    report = check(CocoInstances(*make_coco(boxes)), progress=False)
    assert report.problems[0].startswith("2 of 3 boxes reach beyond their image: perhaps x1, y1, x2, y2")
    with pytest.raises(DamagedSampleError, match="the data set cannot be used:\n2 of 3 boxes"):
        report.raise_or_warn("refuse")
    with pytest.warns(UserWarning, match="instead of x, y, width, height"):
        report.raise_or_warn("skip")
    # The masks' boxes are used then.
    masks = [{**entry, "segmentation": square} for entry in boxes]
    assert check(CocoInstances(*make_coco(masks)), progress=False).problems == []
