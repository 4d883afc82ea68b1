"""Reading COCO files: what is right, and what is damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detection.data.coco_dataset import CocoInstances, DamagedSampleError
from detection.data.transforms import flip_horizontally, flip_vertically
from detection.training.engine import train
from torch.utils.data import Dataset


def edit(annotations, change):
    content = json.loads(annotations.read_text())
    change(content)
    annotations.write_text(json.dumps(content))


def test_samples_have_boxes_masks_and_labels(coco):
    dataset = CocoInstances(*coco)
    assert len(dataset) == 3
    assert dataset.class_names() == ["bar", "square"]
    for number in (1, 2, 3):
        image, target = dataset[number - 1]
        assert image.shape == (3, 48, 64)
        assert image.dtype == torch.float32
        assert target["image_id"] == 10 * number
        # The dark pixels are the mask, whichever way it was written down.
        assert torch.equal(target["masks"][0].bool(), image.amax(dim=0) < 0.3)
        x, y = 5 * number, 6 + 3 * number
        assert target["boxes"].tolist() == [[x, y, x + 18, y + 16]]
        assert target["labels"].tolist() == [2 if number % 2 else 1]


@pytest.mark.parametrize("damage", ["truncated", "text", "missing"])
def test_a_damaged_image_is_named_or_skipped(coco, damage):
    path = coco[0] / "image2.png"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no image")
    else:
        path.unlink()
    with pytest.raises(DamagedSampleError, match=r"image2\.png"):
        CocoInstances(*coco)[1]
    with pytest.warns(UserWarning, match=r"skipped: .*image2\.png"):
        _, target = CocoInstances(*coco, damaged="skip")[1]
    assert target["image_id"] == 30


@pytest.mark.parametrize("name", ["16.png", "16.tif", "16.pgm"])
def test_a_16_bit_image_keeps_its_values(name, tmp_path):
    from detection.data.images import read_image
    from PIL import Image

    grey = np.arange(0, 65536, 2048, dtype=np.uint16).reshape(4, 8)
    Image.fromarray(grey).save(tmp_path / name)
    image = read_image(tmp_path / name)
    torch.testing.assert_close(image, torch.from_numpy(grey / 65535).float().expand(3, -1, -1))


def test_pixels_without_a_range_are_refused(coco):
    from detection.data.coco_dataset import CocoInstances, DamagedSampleError
    from PIL import Image

    Image.fromarray(np.ones((48, 64), dtype=np.float32)).save(coco[0] / "image2.png", format="TIFF")
    with pytest.raises(DamagedSampleError, match=r"image2\.png .*mode F; they must be 8-bit or 16-bit"):
        CocoInstances(*coco)[1]


DAMAGED_ANNOTATIONS = {
    "no segmentation": (lambda a: a.pop("segmentation"), "segmentation"),
    "two points": (lambda a: a.update(segmentation=[[1, 2, 3, 4]]), "three points"),
    "another size": (lambda a: a.update(segmentation={"size": [5, 5], "counts": [25]}), "size"),
    "short runs": (lambda a: a.update(segmentation={"size": [48, 64], "counts": [3, 4]}), "add up"),
    "unknown category": (lambda a: a.update(category_id=99), "category 99"),
    "empty mask": (lambda a: a.update(segmentation={"size": [48, 64], "counts": [48 * 64]}), "empty"),
}


@pytest.mark.parametrize("name", DAMAGED_ANNOTATIONS)
def test_a_damaged_annotation_is_named_or_skipped(coco, name):
    change, reason = DAMAGED_ANNOTATIONS[name]
    edit(coco[1], lambda content: change(content["annotations"][1]))
    with pytest.raises(DamagedSampleError, match=rf"image2\.png: annotation 2 in .*instances\.json: .*{reason}"):
        CocoInstances(*coco)[1]
    with pytest.warns(UserWarning, match=r"image2\.png"):
        image, target = CocoInstances(*coco, damaged="skip")[1]
    assert image.shape == (3, 48, 64)
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 48, 64)


def test_an_annotation_of_no_image_is_refused(coco):
    edit(coco[1], lambda content: content["annotations"][0].update(image_id=5))
    with pytest.raises(DamagedSampleError, match="annotation 1 is of an image that is not listed"):
        CocoInstances(*coco)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "no JSON"), ("[]", "no list 'images'"), ('{"images": [{"id": 1}]}', "has no 'file_name'")],
)
def test_a_wrong_json_is_refused(coco, text, reason):
    coco[1].write_text(text)
    with pytest.raises(ValueError, match=rf"instances\.json.*{reason}"):
        CocoInstances(*coco)


def test_missing_paths_are_named(coco, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        CocoInstances(tmp_path / "nowhere", coco[1])
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        CocoInstances(coco[0], tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="damaged is 'hide'; allowed are refuse, skip"):
        CocoInstances(*coco, damaged="hide")


@pytest.mark.parametrize("lacking", ["__init__", "__getitem__", "__len__"])
def test_a_method_that_a_custom_data_set_lacks_is_named(lacking, tiny_model, tiny_training, tmp_path):
    """At once, by name, before a worker starts or a model is built."""
    methods = {"__init__": lambda self: None, "__getitem__": lambda self, i: None, "__len__": lambda self: 1}
    del methods[lacking]
    broken = type("Broken", (Dataset,), methods)
    with pytest.raises(TypeError, match=rf"Broken lacks {lacking}; it must define"):
        train(broken(), tiny_model, tiny_training, tmp_path / "checkpoint.pt", torch.device("cpu"))


def test_flips_move_boxes_with_masks(coco):
    sample = CocoInstances(*coco)[0]
    seen = set()
    for transform in (flip_horizontally, flip_vertically):
        for seed in range(8):
            image, target = transform(sample, torch.Generator().manual_seed(seed))
            mask = target["masks"][0].numpy()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert target["boxes"].tolist() == [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]
            assert torch.equal(target["masks"][0].bool(), image.amax(dim=0) < 0.3)
            seen.add(tuple(target["boxes"][0].tolist()))
    assert len(seen) == 3  # as it was, mirrored one way, mirrored the other way
