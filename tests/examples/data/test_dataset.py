"""Samples of a COCO data set: right values, what is left out, and what is damaged."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from detection.data.coco_dataset import CocoInstances, DamagedSampleError
from PIL import Image

CROWD_RLE = {"size": [16, 20], "counts": [0, 32, 288]}  # the left two columns


def edit(annotations, change):
    content = json.loads(annotations.read_text())
    change(content)
    annotations.write_text(json.dumps(content))


def only(dataset):
    """The target of the only image, read without any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return dataset[0][1]


def test_samples_have_boxes_masks_and_labels(coco):
    dataset = CocoInstances(*coco)
    assert len(dataset) == 3
    assert dataset.class_names() == ["bar", "square"]
    assert (dataset.category_ids, dataset.categories) == ([3, 7], {3: "bar", 7: "square"})
    assert dataset.image_ids.tolist() == [10, 20, 30]
    assert dataset.targets == "masks"
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
        assert (target["iscrowd"].tolist(), target["area"].tolist()) == ([0], [288.0])
        assert (target["skipped"], target["dropped"]) == (0, 0)
        assert dataset.describe(number - 1) == str(coco[0] / f"image{number}.png")


@pytest.mark.parametrize("damage", ["truncated", "text", "missing", "size", "float"])
def test_a_damaged_image_is_named_or_skipped(coco, damage):
    path = coco[0] / "image2.png"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no image")
    elif damage == "size":
        Image.new("RGB", (48, 65)).save(path)
    elif damage == "float":
        Image.fromarray(np.ones((48, 64), dtype=np.float32)).save(path, format="TIFF")
    else:
        path.unlink()
    with pytest.raises(DamagedSampleError, match=r"image2\.png"):
        CocoInstances(*coco)[1]
    skipping = CocoInstances(*coco, damaged="skip")
    with pytest.warns(UserWarning, match=r"skipped: .*image2\.png"):
        _, target = skipping[1]
    assert target["image_id"] == 30
    with pytest.raises(DamagedSampleError, match=r"image2\.png"):
        skipping.read(1)
    for name in ("image1.png", "image3.png"):
        (coco[0] / name).unlink()
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(DamagedSampleError, match="none of 3 images can be read"),
    ):
        skipping[1]


def test_an_image_beyond_pillows_limit_is_skipped(coco, monkeypatch):
    Image.new("RGB", (640, 480)).save(coco[0] / "image2.png")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10_000)
    with pytest.warns(UserWarning, match=r"skipped: .*image2\.png cannot be read as an image: .*exceeds limit"):
        assert CocoInstances(*coco, damaged="skip")[1][1]["image_id"] == 30


NAN, INF = float("nan"), float("inf")
DAMAGED = {
    "no segmentation": (lambda a: a.pop("segmentation"), "it has no segmentation"),
    "empty segmentation": (lambda a: a.update(segmentation=[]), "it has no segmentation"),
    "null": (lambda a: a.update(segmentation=None), "it has no segmentation"),
    "another size": (lambda a: a.update(segmentation={"size": [5, 5], "counts": [25]}), "size"),
    "short runs": (lambda a: a.update(segmentation={"size": [48, 64], "counts": [3, 4]}), "add up"),
    "nan": (lambda a: a.update(segmentation=[[1, 1, NAN, 1, 5, 5]]), "a polygon has x = nan"),
    "infinite": (lambda a: a.update(segmentation=[[1, 1, 9, -INF, 5, 5]]), "a polygon has y = -inf"),
    "huge": (lambda a: a.update(segmentation=[[1, 1, 1e9, 1, 5, 5]]), "a polygon has x = 1000000000.0"),
    "unknown category": (lambda a: a.update(category_id=99), "category 99"),
    "no category": (lambda a: a.pop("category_id"), "category None"),
    "text category": (
        lambda a: a.update(category_id="3"),
        r"category '3' \(of type str\) is no id; ids must be integers",
    ),
    "fraction": (lambda a: a.update(category_id=3.5), r"category 3\.5 \(of type float\) is no id"),
    "empty polygon": (lambda a: a.update(segmentation=[[]]), "it has no segmentation"),
    "bool category": (lambda a: a.update(category_id=True), "category True"),
    "list category": (lambda a: a.update(category_id=[3]), r"category \[3\]"),
    "crowd 2": (lambda a: a.update(iscrowd=2), "iscrowd is 2; it must be 0 or 1"),
    "text crowd": (lambda a: a.update(iscrowd="0"), "iscrowd is '0'"),
    "null crowd": (lambda a: a.update(iscrowd=None), "iscrowd is None"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_annotation_is_named_or_skipped(coco, name):
    change, reason = DAMAGED[name]
    edit(coco[1], lambda content: change(content["annotations"][1]))
    with pytest.raises(DamagedSampleError, match=rf"image2\.png: annotation 2 in .*instances\.json: .*{reason}"):
        CocoInstances(*coco)[1]
    with pytest.warns(UserWarning, match=r"image2\.png"):
        image, target = CocoInstances(*coco, damaged="skip")[1]
    assert image.shape == (3, 48, 64)
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 48, 64)
    assert (target["skipped"], target["dropped"], target["image_id"]) == (1, 0, 20)


def test_an_annotation_without_id_is_named_by_its_number(coco):
    edit(coco[1], lambda content: [content["annotations"][1].pop("id"), content["annotations"][1].pop("category_id")])
    with pytest.raises(DamagedSampleError, match=r"image2\.png: annotation number 0 of the image in .*: category None"):
        CocoInstances(*coco)[1]


def test_useless_parts_and_objects_without_area_are_dropped_without_an_error(make_coco, square):
    flat = [[1, 4, 9, 4, 15, 4]]  # of no height, as train2017's annotation 918
    annotations = [
        {"segmentation": [*square, [1, 1, 2, 2]]},
        {"segmentation": flat, "bbox": [1, 4, 14, 0]},
        {"segmentation": [[1, 1, 2, 2]]},
        {"segmentation": {"size": [16, 20], "counts": [320]}},
        {"segmentation": [[-9, 1, -3, 1, -3, 9]]},  # beside the image
    ]
    target = only(CocoInstances(*make_coco(annotations)))
    assert target["boxes"].tolist() == [[2, 3, 12, 9]]
    assert target["masks"].sum() == 60
    assert (target["skipped"], target["dropped"]) == (0, 4)


@pytest.mark.parametrize(
    ("bbox", "box"),
    [
        (None, [2, 3, 12, 9]),
        ([2.5, 3.25, 9.25, 5.5], [2.5, 3.25, 11.75, 8.75]),  # near the mask: the annotation's
        ([0, 1, 14, 10], [0, 1, 14, 11]),
        ([4.1, 3, 7.9, 6], [2, 3, 12, 9]),  # an edge more than 2 pixels away: the mask's
        ([3, 2, 12, 12], [2, 3, 12, 9]),
        ([2, 3, 12, -1], [2, 3, 12, 9]),
        ([2, 3, 0, 0], [2, 3, 12, 9]),
        ([2, 3, "a", None], [2, 3, 12, 9]),
        ([NAN, 3, 10, 6], [2, 3, 12, 9]),
        ("box", [2, 3, 12, 9]),
    ],
)
def test_the_box_of_a_mask(make_coco, square, bbox, box):
    target = only(CocoInstances(*make_coco([{"segmentation": square, "bbox": bbox}])))
    assert target["boxes"].tolist() == [box]


@pytest.mark.parametrize(
    "polygon",
    [
        [5, 5, 60, 5, 61, 40, 59, 8],  # its tips have no pixels
        [10, 10, 14, 10, 12, 70],
        [5, 5, 60, 5, 60, 40, 5, 40],
    ],
)
def test_a_bbox_of_the_polygons_extents_is_the_objects(make_coco, polygon):
    xs, ys = polygon[0::2], polygon[1::2]
    box = [min(xs), min(ys), max(xs), max(ys)]
    folder, annotations = make_coco(
        [{"segmentation": [polygon], "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]]}],
    )
    edit(annotations, lambda content: content["images"][0].update(height=100, width=100))
    Image.new("RGB", (100, 100)).save(folder / "one.png")
    assert only(CocoInstances(folder, annotations))["boxes"].tolist() == [box]
    edit(annotations, lambda content: content["annotations"][0]["bbox"].__setitem__(0, box[0] + 4))
    assert only(CocoInstances(folder, annotations))["boxes"].tolist() != [[box[0] + 4, *box[1:]]]


def test_a_box_of_no_width_is_dropped(make_coco):
    annotations = [{"bbox": [1, 1, 5, 5]}, {"bbox": [-3.0, 6, 3.0005, 8]}, {"bbox": [2, 2, 5, 4e-4]}]
    target = only(CocoInstances(*make_coco(annotations)))
    assert (target["boxes"].tolist(), target["dropped"]) == ([[1, 1, 6, 6]], 2)


def test_whole_numbers_as_floats_are_ids(coco):
    expected = [CocoInstances(*coco)[index][1] for index in range(3)]

    def change(content):
        for entry in [*content["images"], *content["categories"]]:
            entry["id"] = float(entry["id"])
        for entry in content["annotations"]:
            entry.update(image_id=float(entry["image_id"]), category_id=float(entry["category_id"]))

    edit(coco[1], change)
    dataset = CocoInstances(*coco)
    assert [type(number) for number in dataset.category_ids] == [int, int]
    for index, target in enumerate(expected):
        found = dataset[index][1]
        assert found["image_id"] == target["image_id"]
        assert found["labels"].equal(target["labels"])


def test_a_bbox_is_cut_to_the_image(make_coco):
    annotation = {"segmentation": [[10, 10, 21, 10, 21, 17, 10, 17]], "bbox": [10, 10, 11, 7]}
    assert only(CocoInstances(*make_coco([annotation])))["boxes"].tolist() == [[10, 10, 20, 16]]


@pytest.mark.parametrize(
    ("area", "expected"),
    [(55.5, 55.5), (None, 60), (0, 60), (-3, 60), (NAN, 60), (INF, 60), ("55", 60), (1e300, 60), (True, 60)],
)
def test_the_area_is_the_annotations_where_it_is_positive(make_coco, square, area, expected):
    target = only(CocoInstances(*make_coco([{"segmentation": square, "area": area}])))
    assert target["area"].tolist() == [expected]
    target = only(CocoInstances(*make_coco([{"bbox": [1, 2, 10, 6], "area": area}])))
    assert target["area"].tolist() == [expected]


def test_crowds_are_kept_and_marked(make_coco, square):
    annotations = [{"segmentation": square, "iscrowd": 0}, {"segmentation": CROWD_RLE, "iscrowd": 1}]
    target = only(CocoInstances(*make_coco(annotations)))
    assert target["iscrowd"].tolist() == [0, 1]
    assert target["boxes"].tolist() == [[2, 3, 12, 9], [0, 0, 2, 16]]


def test_an_image_without_annotations(make_coco, square):
    images = [{"id": 3, "file_name": "a.png"}, {"id": -1, "file_name": "b.png"}]
    dataset = CocoInstances(*make_coco([{"segmentation": square}], images=images))
    assert dataset.image_ids.tolist() == [-1, 3]
    target = dataset[0][1]
    assert (target["image_id"], target["masks"].shape, target["boxes"].shape) == (-1, (0, 16, 20), (0, 4))


def test_an_extreme_ratio_is_named(make_coco, square):
    folder, annotations = make_coco(
        [{"segmentation": square, "image_id": 2}],
        images=[{"id": 1, "file_name": "thin.png"}, {"id": 2, "file_name": "b.png"}],
    )
    Image.new("RGB", (3000, 1)).save(folder / "thin.png")
    assert CocoInstances(folder, annotations)[0][0].shape == (3, 1, 3000)
    with pytest.raises(DamagedSampleError, match=r"thin\.png: .*3000 x 1 .*ratio of 3000 to 1; at most 1333 to 1"):
        CocoInstances(folder, annotations, max_ratio=1333)[0]
    with pytest.warns(UserWarning, match=r"skipped: .*thin\.png"):
        assert CocoInstances(folder, annotations, "skip", max_ratio=1333)[0][1]["image_id"] == 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("by", ["upright", "stored", "none"])
def test_masks_lie_on_their_objects_whatever_the_orientation(make_coco, orientation, by):
    """The annotations' coordinates are those of the image of the JSON's size."""
    from PIL import ImageOps

    pixels = np.full((16, 20, 3), 200, dtype=np.uint8)
    pixels[2:5, 3:11] = 20
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(_with(Image.fromarray(pixels), exif)))
    # By the stored size where it is another one than the upright image's.
    shown = pixels if by == "stored" and orientation >= 5 else upright
    dark = np.asfortranarray(shown[..., 0] < 100)
    runs = np.diff(np.flatnonzero(np.diff(dark.flatten("F"), prepend=False, append=False)), prepend=0).tolist()
    runs.append(dark.size - sum(runs))
    entry = {"id": 1, "file_name": "one.png"}
    if by != "none":
        entry |= {"height": shown.shape[0], "width": shown.shape[1]}
    folder, annotations = make_coco([{"segmentation": {"size": list(dark.shape), "counts": runs}}], images=[entry])
    Image.fromarray(pixels).save(folder / "one.png", exif=exif)
    image, target = CocoInstances(folder, annotations)[0]
    assert torch.equal(target["masks"][0].bool(), image.amax(dim=0) < 0.5)
    assert target["masks"].sum() == 24


def _with(image, exif):
    image.info["exif"] = exif.tobytes()
    return image
