"""EXIF orientations of which the size does not tell whether the annotations are for the turned image."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from detection.data.check import check
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError
from detection.data.images import read_image
from PIL import Image

PIXELS = np.zeros((16, 20, 3), dtype=np.uint8)
PIXELS[3:9, 2:12] = 200  # the object, as stored


def write(make_coco, square, entries, pixels=PIXELS):
    """``entries``: of each image its orientation and its stated (height, width) or None."""
    images = []
    for number, (_, size) in enumerate(entries, 1):
        stated = {} if size is None else {"height": size[0], "width": size[1]}
        images.append({"id": number, "file_name": f"{number}.png", **stated})
    annotations = [{"image_id": entry["id"], "segmentation": square} for entry in images]
    folder, path = make_coco(annotations, images=images)
    for number, (orientation, _) in enumerate(entries, 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(folder / f"{number}.png", exif=exif)
    return folder, path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_apply_and_ignore(make_coco, square, orientation):
    files = write(make_coco, square, [(orientation, None)])
    stored = read_image(files[0] / "1.png", (16, 20), "ignore")
    assert torch.equal(stored, torch.from_numpy(PIXELS).permute(2, 0, 1) / 255)
    image, target = CocoInstances(*files, orientation="ignore")[0]
    assert torch.equal(image, stored)
    assert torch.equal(target["masks"][0].bool(), image[0] > 0.5)  # annotated as stored
    upright = CocoInstances(*files, orientation="apply")[0][0]
    assert torch.equal(upright, read_image(files[0] / "1.png"))
    assert torch.equal(upright, stored) == (orientation == 1)


def test_a_size_that_contradicts(make_coco, square):
    files = write(make_coco, square, [(6, (16, 20)), (6, (20, 16)), (3, (9, 9))])
    for orientation, wrong in (("ignore", 1), ("apply", 0), ("auto", 2)):
        dataset = CocoInstances(*files, orientation=orientation)
        for index in range(3):
            if index in (wrong, 2):
                with pytest.raises(DamagedSampleError, match=rf"{index + 1}\.png is 20 x 16 .*its annotations are for"):
                    dataset.read(index)
            else:
                dataset.read(index)
    with pytest.raises(ValueError, match="orientation is 'up'; allowed are auto, apply, ignore"):
        CocoInstances(*files, orientation="up")


def test_others_that_were_ignored_make_it_a_problem(make_coco, square):
    """Sizes decide for 90 degrees, not for 180: the same tool has ignored both."""
    files = write(make_coco, square, [(6, (16, 20)), (3, (16, 20)), (1, (16, 20))])
    report = check(CocoInstances(*files), progress=False)
    assert (report.orientations_applied, report.orientations_kept, report.orientations_undecided) == (1, 1, 1)
    with pytest.raises(DamagedSampleError, match="of 1 image .*for 1 other it was not; .*--orientation apply"):
        report.raise_or_warn("refuse")
    with pytest.warns(UserWarning, match="--orientation apply or ignore"):
        report.raise_or_warn("skip")
    report = check(CocoInstances(*files, orientation="ignore"), progress=False)
    assert (report.orientations_kept, report.orientations_undecided, report.problems) == (2, 0, [])


@pytest.mark.parametrize("size", [(16, 20), None])
def test_where_nothing_decides_one_warning_counts(make_coco, square, size):
    files = write(make_coco, square, [(3, size), (2, size)])
    report = check(CocoInstances(*files), progress=False)
    assert report.problems == []
    with pytest.warns(UserWarning, match="^2 images have an EXIF orientation of which the size does not") as caught:
        report.raise_or_warn("refuse")
    assert len(caught) == 1


def test_square_images_are_undecided_and_others_that_were_applied_decide(make_coco, square):
    files = write(make_coco, square, [(6, (16, 16))], PIXELS[:, :16])
    assert check(CocoInstances(*files), progress=False).orientations_undecided == 1
    files = write(make_coco, square, [(6, (20, 16)), (3, (16, 20))])
    report = check(CocoInstances(*files), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.raise_or_warn("refuse")


def test_one_side_alone_is_compared(make_coco, square):
    files = write(make_coco, square, [(6, (None, 16)), (6, (16, None)), (1, (None, 99))])
    dataset = CocoInstances(*files)
    assert [tuple(dataset.read(index)[0].shape[1:]) for index in range(2)] == [(20, 16), (16, 20)]
    with pytest.raises(DamagedSampleError, match=r"3\.png is 20 x 16 pixels, its annotations are for 99 x \?"):
        dataset.read(2)
    assert check(dataset, images=False, progress=False).unreadable_images == 1
