"""The check before training: everything is found and counted, nothing is decoded."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from detection.data.check import CheckReport, check
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError
from PIL import Image

GOOD = {"id": 99, "bbox": [1, 2, 5, 6]}


@pytest.fixture
def mixed(make_coco, square):
    """Six images with a bit of everything."""
    images = [{"id": number, "file_name": f"{number}.png", "height": 16, "width": 20} for number in range(1, 7)]
    annotations = [
        {"id": 0, "segmentation": [*square, [1, 1]], "bbox": [2, 3, 10, 6]},
        {"id": 0, "segmentation": square, "bbox": [2, 3, 15, 6]},  # too wide
        {"id": 1, "segmentation": [[1, 4, 9, 4, 15, 4]]},  # without area
        {"id": 2, "segmentation": [[1, 4, 1e9, 4, 15, 4]]},
        {"id": 3, "segmentation": square, "category_id": 17, "image_id": 2},
        {"id": 4, "segmentation": square, "image_id": 3},
        {"id": 5, "segmentation": square, "image_id": 4},
        {"id": 6, "segmentation": square, "image_id": 99},
    ]
    folder, path = make_coco(annotations, images=images)
    (folder / "3.png").write_text("no image")
    Image.new("L", (21, 16)).save(folder / "4.png")
    for number, size in ((5, (16, 20)), (6, (20, 16))):  # as seen, as stored
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", size).save(folder / f"{number}.png", exif=exif)
    return folder, path


def test_everything_is_counted(mixed, capsys):
    with pytest.warns(UserWarning, match="annotation 6 is of an image that is not listed"):
        dataset = CocoInstances(*mixed, damaged="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = check(dataset)
    assert "check: 100%" in capsys.readouterr().out
    problems = report.problems
    assert len(problems) == 5
    assert "annotation 6 is of an image that is not listed" in problems[0]
    assert "1.png: annotation 2 in" in problems[1]
    assert "2.png: annotation 3 in" in problems[2]
    assert "3.png cannot be read as an image" in problems[3]
    assert "4.png is 21 x 16 pixels, its annotations are for 20 x 16" in problems[4]
    report.problems = []
    assert report == CheckReport(
        images=6,
        annotations=8,
        unreadable_images=2,
        damaged_annotations=3,
        dropped_parts=1,
        dropped_objects=1,
        disagreeing_boxes=1,
        orientations_applied=1,
        orientations_kept=1,
        objects=2,
        boxes=2,
        boxes_as_corners=2,
    )
    report.problems = problems
    text = str(report)
    for part in (
        "6 images, 8 annotations",
        "2 images cannot be used",
        "3 annotations are damaged",
        "1 polygon of fewer than three points is left out",
        "1 object without area in the image is left out",
        "1 box is not near its mask; the mask's box is used",
        "EXIF orientations: 1 applied, 1 ignored",
        "3.png",
    ):
        assert part in text
    with pytest.raises(DamagedSampleError, match=r"2 images and 3 annotations cannot be used(.|\n)*4\.png"):
        report.raise_or_warn("refuse")
    with pytest.warns(UserWarning, match="2 images and 3 annotations are damaged and skipped") as caught:
        report.raise_or_warn("skip")
    assert len(caught) == 1
    assert "1 object without area" in str(caught[0].message)


def test_the_counts_are_those_of_reading(mixed):
    with pytest.warns(UserWarning, match="not listed"):
        dataset = CocoInstances(*mixed, damaged="skip")
    report = check(dataset, progress=False)
    skipped = dropped = unreadable = 0
    for index in range(len(dataset)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                _, target = dataset.read(index)
            except DamagedSampleError:
                unreadable += 1
                continue
        skipped += target["skipped"]
        dropped += target["dropped"]
    assert (skipped + len(dataset.stray), dropped, unreadable) == (
        report.damaged_annotations,
        report.dropped_objects,
        report.unreadable_images,
    )


def test_without_images(mixed):
    with pytest.warns(UserWarning, match="not listed"):
        dataset = CocoInstances(*mixed, damaged="skip")
    report = check(dataset, images=False, progress=False)
    assert (report.unreadable_images, report.damaged_annotations, report.orientations_applied) == (0, 3, 0)


def test_nothing_damaged_says_so(coco):
    report = check(CocoInstances(*coco), progress=False)
    assert str(report) == "3 images, 3 annotations\nnothing is damaged"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.raise_or_warn("refuse")


def test_useless_objects_alone_are_one_warning_in_both_modes(make_coco, square):
    dataset = CocoInstances(*make_coco([{"segmentation": square}, {"segmentation": [[1, 4, 9, 4, 15, 4]]}]))
    report = check(dataset, progress=False)
    for damaged in ("refuse", "skip"):
        with pytest.warns(UserWarning) as caught:
            report.raise_or_warn(damaged)
        assert [str(one.message) for one in caught] == ["1 object without area in the image is left out"]


def test_only_the_first_problems_are_listed(make_coco):
    report = check(
        CocoInstances(*make_coco([{"id": n, "bbox": [1, 2, 3]} for n in range(25)] + [GOOD])), progress=False
    )
    with pytest.raises(DamagedSampleError) as caught:
        report.raise_or_warn("refuse")
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert "0 images and 25 annotations cannot be used" in lines[0]
    assert "annotation 9 " in lines[10]
    assert lines[11] == "... and 15 more"


@pytest.mark.parametrize("name", ["one.png", "one.tif"])
def test_12_bits_in_16_are_pointed_out(make_coco, square, name):
    images = [{"id": 1, "file_name": name}, {"id": 2, "file_name": "bright.png"}]
    folder, path = make_coco([{"segmentation": square}], images=images)
    Image.fromarray(np.full((16, 20), 4000, dtype=np.uint16)).save(folder / name)
    Image.fromarray(np.full((16, 20), 5000, dtype=np.uint16)).save(folder / "bright.png")
    report = check(CocoInstances(folder, path), progress=False)
    assert report.dark_images == 1
    with pytest.warns(UserWarning, match=r"1 of the first 8 images of 16 bits has no value above 4095"):
        report.raise_or_warn("refuse")


def test_kinds_of_pixels_and_ratios_are_checked(make_coco, square):
    images = [{"id": 1, "file_name": "float.tif"}, {"id": 2, "file_name": "thin.png"}]
    folder, path = make_coco([{"segmentation": square}], images=images)
    Image.fromarray(np.ones((16, 20), dtype=np.float32)).save(folder / "float.tif")
    Image.new("L", (2000, 1)).save(folder / "thin.png")
    report = check(CocoInstances(folder, path, max_ratio=1333), progress=False)
    assert report.unreadable_images == 2
    assert "float.tif has pixels of floating point" in report.problems[2]
    assert "2000 x 1" in report.problems[3]
    assert report.problems[0].startswith("none of the 2 images can be used")
    assert report.problems[1] == "no object is left to learn from: 2 images that cannot be used"


def test_crowds_are_counted(make_coco, square):
    crowd = {"segmentation": square, "iscrowd": 1}
    report = check(CocoInstances(*make_coco([crowd, crowd, {"segmentation": square}])), progress=False)
    assert (report.crowds, report.objects, report.problems) == (2, 1, [])
    assert "2 annotations are crowds" in str(report)


def test_of_one_thing_there_is_no_plural(make_coco, square):
    crowd, triangle = {"segmentation": square, "iscrowd": 1}, [[1, 4, 9, 4, 15, 4]]
    assert str(check(CocoInstances(*make_coco([{"segmentation": square}])), progress=False)) == (
        "1 image, 1 annotation\nnothing is damaged"
    )
    entries = [crowd, {"segmentation": square}, {"segmentation": triangle}, {"segmentation": square, "category_id": 9}]
    report = check(CocoInstances(*make_coco(entries), damaged="skip"), progress=False)
    assert str(report).splitlines()[:4] == [
        "1 image, 4 annotations",
        "1 annotation is damaged",
        "1 annotation is a crowd, which is not learnt",
        "1 object without area in the image is left out",
    ]


def test_no_object_left_to_learn_from(make_coco, square):
    annotations = [
        {"segmentation": square, "iscrowd": 1},
        {"segmentation": [[1, 4, 9, 4, 15, 4]]},
        {"segmentation": [[1, 4, 9]]},
    ]
    report = check(CocoInstances(*make_coco(annotations), damaged="skip"), progress=False)
    assert report.problems[0] == "no object is left to learn from: 1 crowd, 1 without area, 1 damaged"
    for damaged in ("refuse", "skip"):  # skipping gives no objects
        with pytest.raises(DamagedSampleError, match="no object is left to learn from"):
            report.raise_or_warn(damaged)


def test_a_wrong_folder_is_one_line(coco, tmp_path):
    report = check(CocoInstances(tmp_path, coco[1], "skip"), progress=False)
    assert report.problems[0].startswith("none of the 3 images can be used: is --images the folder of")


def test_targets_are_masks_only_where_there_are_some(make_coco, square):
    for number, segmentation in enumerate(([[]], [], None, [[1, 2, 3, 4]], {})):
        entry = {"bbox": [2, 3, 10, 6], "segmentation": segmentation}
        dataset = CocoInstances(*make_coco([entry], name=str(number)))
        assert dataset.targets == "boxes"
        assert dataset[0][1]["boxes"].tolist() == [[2, 3, 12, 9]]
    for segmentation in (square, {"size": [16, 20], "counts": [0, 32, 288]}):
        assert CocoInstances(*make_coco([entry, {"segmentation": segmentation}])).targets == "masks"


class Custom(torch.utils.data.Dataset):
    def __init__(self, label):
        self.label = label

    def __len__(self):
        return 3

    def __getitem__(self, index):
        boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        return torch.zeros(3, 8, 8), {"boxes": boxes, "labels": torch.tensor([self.label if index == 1 else 1])}

    def class_names(self):
        return ["a", "b"]


def test_samples_of_another_data_set_are_read():
    assert str(check(Custom(2), progress=False)) == "3 images, 3 annotations\nnothing is damaged"
    report = check(Custom(3), progress=False)
    assert report.problems == ["sample 1: label 3 is none of 1 to 2, the number of class_names"]
    assert check(Custom(3), images=False, progress=False).problems == []
