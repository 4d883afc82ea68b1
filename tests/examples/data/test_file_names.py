"""File names of a JSON: one file under two names, and names written on Windows."""

from __future__ import annotations

import json

import pytest
from detection.data.coco_dataset import CocoInstances


def rename(annotations, *names):
    content = json.loads(annotations.read_text())
    for entry, name in zip(content["images"], names, strict=False):
        entry["file_name"] = name
    annotations.write_text(json.dumps(content))


def test_an_absolute_and_a_relative_name_of_one_file(coco):
    absolute = str((coco[0] / "image1.png").absolute())
    rename(coco[1], "image1.png", absolute)
    with pytest.raises(ValueError, match=r"image1\.png' is listed twice, under ids 10 and 20"):
        CocoInstances(*coco)


def test_windows_separators(coco):
    (coco[0] / "sub").mkdir()
    (coco[0] / "image1.png").rename(coco[0] / "sub" / "image1.png")
    (coco[0] / "image2.png").rename(coco[0] / "sub\\image2.png")  # here this is one name
    (coco[0] / "image3.png").rename(coco[0] / "sub" / "image2.png")
    rename(coco[1], "sub\\image1.png", "sub\\image2.png", "sub/image2.png")
    dataset = CocoInstances(*coco)
    assert [dataset[index][1]["image_id"] for index in range(3)] == [10, 20, 30]
    assert dataset.path(0) == coco[0] / "sub" / "image1.png"
    assert dataset.path(1) == coco[0] / "sub\\image2.png"
    assert dataset.file_name(0) == "sub\\image1.png"
    rename(coco[1], "sub\\image1.png", "sub/image1.png")
    with pytest.raises(ValueError, match="'sub/image1.png' is listed twice, under ids 10 and 20"):
        CocoInstances(*coco)


def test_windows_separators_do_not_lead_out_of_the_folder(coco):
    (coco[0].parent / "outside.png").write_bytes((coco[0] / "image1.png").read_bytes())
    rename(coco[1], "..\\outside.png")
    dataset = CocoInstances(*coco)
    assert dataset.path(0) == coco[0] / "..\\outside.png"  # a file of the folder, which is not there
    with pytest.raises(ValueError, match="there is no such image file"):
        dataset.read(0)
