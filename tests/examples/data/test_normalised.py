"""Coordinates as fractions, and boxes in another order, are named instead of learnt."""

from __future__ import annotations

import warnings

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
    inside = [{"bbox": [9, 1, 8, 8]}, {"bbox": [1, 9, 20, 7]}]  # the second by 1 pixel
    folder, path = make_coco([*inside, {"bbox": [5, 6, 15, 14], "id": 7}])
    report = check(CocoInstances(folder, path), progress=False)
    assert (report.boxes, report.boxes_beyond, report.boxes_as_corners, report.problems) == (3, 1, 1, [])
    assert str(report).splitlines() == [
        "1 image, 3 annotations",
        f"1 box reaches beyond the image by more than 2 pixels: {folder / 'one.png'}: annotation 7, "
        "bbox [5, 6, 15, 14], in an image of 20 x 16 pixels (width x height)",
        "nothing is damaged",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.raise_or_warn("refuse")


@pytest.mark.parametrize("masks", [False, True])
def test_where_most_boxes_would_be_corners_it_is_asked(make_coco, square, masks):
    """Fewer than half reach beyond the image: no damage, but not called sound either."""
    boxes = [[1, 1, 9, 9], [2, 2, 9, 8], [3, 1, 12, 9], [5, 6, 18, 14], [8, 2, 19, 9]]  # x1 y1 x2 y2
    more = {"segmentation": square} if masks else {}
    report = check(CocoInstances(*make_coco([{"bbox": box, **more} for box in boxes])), progress=False)
    assert report.problems == []
    lines = str(report).splitlines()
    assert lines[1].startswith("2 boxes reach beyond the image by more than 2 pixels, the first: ")
    assert "annotation number 3 of the image, bbox [5, 6, 18, 14], in an image of 20 x 16 pixels" in lines[1]
    assert lines[2] == ("x1 y1 x2 y2 instead of x y width height? Read so, 5 of 5 boxes would be within the image")
    assert "nothing is damaged" not in lines
    with pytest.warns(UserWarning, match=r"\[5, 6, 18, 14\].*x1 y1 x2 y2 instead of x y width height\?"):
        report.raise_or_warn("refuse")


def test_boxes_that_are_no_corners_either(make_coco):
    boxes = [{"bbox": [12, 9, 11, 6]}, {"bbox": [15, 2, 9, 9]}, {"bbox": [1, 9, 9, 5]}]
    report = check(CocoInstances(*make_coco(boxes)), progress=False)
    assert report.problems == ["2 of 3 boxes reach beyond their image: are the annotations for images of another size?"]
    assert "x1 y1" not in str(report)


def test_corners_instead_of_sides_are_pointed_out(make_coco, square):
    boxes = [{"bbox": [5, 6, 18, 14]}, {"bbox": [8, 2, 19, 9]}, {"bbox": [1, 1, 9, 9]}]  # x1 y1 x2 y2
    report = check(CocoInstances(*make_coco(boxes)), progress=False)
    assert report.problems[0].startswith("2 of 3 boxes reach beyond their image: x1 y1 x2 y2 instead of")
    assert str(report).count("x1 y1 x2 y2") == 1
    with pytest.raises(DamagedSampleError, match="the data set cannot be used:\n2 of 3 boxes"):
        report.raise_or_warn("refuse")
    with pytest.warns(UserWarning, match="instead of x y width height"):
        report.raise_or_warn("skip")
    # The masks' boxes are used then.
    masks = [{**entry, "segmentation": square} for entry in boxes]
    assert check(CocoInstances(*make_coco(masks)), progress=False).problems == []
