"""The instances JSON as a whole: what it must have, and one sentence for what it lacks."""

from __future__ import annotations

import gc
import json

import pytest
from detection.data.coco_dataset import CocoInstances
from detection.data.errors import DamagedSampleError


def image(number, name, **more):
    return {"id": number, "file_name": name, **more}


def edit(annotations, change):
    content = json.loads(annotations.read_text())
    change(content)
    annotations.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON file"),
        ("", "is no JSON file"),
        ("\x00\xff", "is no JSON file"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "has no list 'images'|has no list 'categories'"),
        ("null", "has no list"),
        ('{"images": {}, "annotations": {}, "categories": {}}', "has no list"),
    ],
)
def test_a_wrong_json_is_refused(coco, text, reason):
    coco[1].write_text(text)
    with pytest.raises(ValueError, match=rf"instances\.json.*({reason})"):
        CocoInstances(*coco)


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", ["missing", "empty"])
def test_missing_and_empty_sections_are_named(coco, section, value):
    edit(coco[1], lambda content: content.pop(section) if value == "missing" else content.update({section: []}))
    reason = f"has no list '{section}'" if value == "missing" else f"its list '{section}' is empty"
    with pytest.raises(ValueError, match=rf"instances\.json:? {reason}"):
        CocoInstances(*coco)


DAMAGE = {
    "image without id": (lambda c: c["images"][1].pop("id"), "entry 1 of 'images' has no 'id'"),
    "image without file": (lambda c: c["images"][1].pop("file_name"), "entry 1 of 'images' has no 'file_name'"),
    "image of no object": (lambda c: c["images"].insert(1, 7), "entry 1 of 'images' has no 'id'"),
    "text id": (
        lambda c: c["images"][1].update(id="20"),
        r"entry 1 of 'images' has the id '20' \(of type str\); ids must be integers",
    ),
    "bool id": (lambda c: c["images"][1].update(id=True), r"has the id True \(of type bool\); ids must be integers"),
    "fraction": (lambda c: c["images"][1].update(id=2.5), "has the id 2.5"),
    "huge id": (lambda c: c["images"][1].update(id=2**63), "has the id 9223372036854775808"),
    "image id twice": (
        lambda c: c["images"][1].update(id=10),
        "image id 10 is given twice, to 'image1.png' and 'image2.png'",
    ),
    "image file twice": (
        lambda c: c["images"][1].update(file_name="./image1.png"),
        "image file './image1.png' is listed twice, under ids 10 and 20",
    ),
    "file is a number": (lambda c: c["images"][1].update(file_name=3), "has the file_name 3; it must be a text"),
    "no file name": (lambda c: c["images"][1].update(file_name=""), "has the file_name ''"),
    "zero byte": (lambda c: c["images"][1].update(file_name="a\0.png"), "it must be a text"),
    "height 0": (
        lambda c: c["images"][1].update(height=0),
        r"image 20 \(image2.png\) has the height 0; it must be a pos",
    ),
    "negative width": (lambda c: c["images"][1].update(width=-5), "has the width -5"),
    "text width": (lambda c: c["images"][1].update(width="64"), "has the width '64'"),
    "out by dots": (lambda c: c["images"][1].update(file_name="../a.png"), r"'\.\./a\.png' is not within the folder"),
    "out by path": (lambda c: c["images"][1].update(file_name="/etc/a.png"), "'/etc/a.png' is not within the folder"),
    "the folder": (lambda c: c["images"][1].update(file_name="."), "'.' is not within the folder"),
    "category without name": (lambda c: c["categories"][1].pop("name"), "entry 1 of 'categories' has no 'name'"),
    "category id twice": (
        lambda c: c["categories"][1].update(id=7),
        "category id 7 is given twice, to 'square' and 'bar'",
    ),
    "category name twice": (
        lambda c: c["categories"][1].update(name="square"),
        "category name 'square' is given twice, to ids 7 and 3",
    ),
    "text category": (lambda c: c["categories"][1].update(id="3"), "entry 1 of 'categories' has the id '3'"),
    "name is null": (lambda c: c["categories"][1].update(name=None), "has the name None; it must be a text"),
}


@pytest.mark.parametrize("damaged", ["refuse", "skip"])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_of_the_whole_is_refused(coco, name, damaged):
    change, reason = DAMAGE[name]
    edit(coco[1], change)
    with pytest.raises(ValueError, match=rf"instances\.json: .*{reason}"):
        CocoInstances(*coco, damaged=damaged)


def test_paths_within_the_folder_are_accepted(coco):
    (coco[0] / "sub").mkdir()
    (coco[0] / "image1.png").rename(coco[0] / "sub" / "image1.png")
    names = ["sub/image1.png", "sub/../image2.png", str((coco[0] / "image3.png").absolute())]
    edit(coco[1], lambda c: [entry.update(file_name=name) for entry, name in zip(c["images"], names, strict=True)])
    dataset = CocoInstances(*coco)
    assert [dataset[index][1]["image_id"] for index in range(3)] == [10, 20, 30]
    assert [dataset.file_name(index) for index in range(3)] == names


STRAY = {
    "another image": (
        lambda c: c["annotations"][0].update(image_id=5),
        "annotation 1 is of an image that is not listed, 5",
    ),
    "no image_id": (lambda c: c["annotations"][0].pop("image_id"), "annotation 1 has no 'image_id'"),
    "text": (
        lambda c: c["annotations"][0].update(image_id="10"),
        r"annotation 1 has the image_id '10' \(of type str\); ids must be integers",
    ),
    "list": (lambda c: c["annotations"][0].update(image_id=[10]), r"has the image_id \[10\] \(of type list\)"),
    "without id": (
        lambda c: [c["annotations"][0].pop("id"), c["annotations"][0].pop("image_id")],
        "annotation number 0",
    ),
    "no object": (lambda c: c["annotations"].insert(0, "x"), "entry 0 of 'annotations' is 'x'"),
}


@pytest.mark.parametrize("name", STRAY)
def test_an_annotation_of_no_image_is_refused_or_skipped(coco, name):
    change, reason = STRAY[name]
    edit(coco[1], change)
    with pytest.raises(DamagedSampleError, match=rf"instances\.json: .*{reason}"):
        CocoInstances(*coco)
    with pytest.warns(UserWarning, match=rf"skipped: .*{reason}"):
        dataset = CocoInstances(*coco, damaged="skip")
    assert len(dataset.stray) == 1
    assert len(dataset[1][1]["labels"]) == 1


@pytest.mark.parametrize("ids", [[0, 1, 2], [1, 1, 1], ["a", None, 2.5], None])
def test_ids_of_annotations_do_not_matter(coco, ids):
    expected = [CocoInstances(*coco)[index][1] for index in range(3)]

    def change(content):
        for number, annotation in enumerate(content["annotations"]):
            annotation.pop("id")
            if ids is not None:
                annotation["id"] = ids[number]

    edit(coco[1], change)
    for index, target in enumerate(expected):
        found = CocoInstances(*coco)[index][1]
        assert found["masks"].equal(target["masks"])
        assert found["boxes"].equal(target["boxes"])


def test_what_may_be_missing(coco):
    expected = [CocoInstances(*coco)[index][1] for index in range(3)]

    def change(content):
        for entry in content["images"]:
            del entry["height"], entry["width"]
        for entry in content["annotations"]:
            del entry["iscrowd"], entry["area"], entry["bbox"]

    edit(coco[1], change)
    for index, target in enumerate(expected):
        found = CocoInstances(*coco)[index][1]
        assert found.keys() == target.keys()
        assert all(found[key].equal(target[key]) for key in ("boxes", "labels", "masks", "iscrowd", "area"))


def test_the_parsed_json_is_not_kept(coco):
    edit(coco[1], lambda content: content.update(info={"marker of this test": 1}))
    dataset = CocoInstances(*coco)
    gc.collect()
    # Python 3.14 also shows its dictionary of interned strings, each of which is its own value.
    dictionaries = [value for value in gc.get_objects() if type(value) is dict]
    kept = [value for value in dictionaries if "image_id" in value and type(value.get("bbox")) is list]
    assert not kept
    assert gc.isenabled()
    assert len(dataset) == 3


def test_missing_paths_and_wrong_arguments_are_named(coco, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        CocoInstances(tmp_path / "nowhere", coco[1])
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        CocoInstances(coco[0], tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="damaged is 'hide'; allowed are refuse, skip"):
        CocoInstances(*coco, damaged="hide")
    with pytest.raises(ValueError, match="targets is 'dots'; allowed are masks, boxes, keypoints"):
        CocoInstances(*coco, targets="dots")
    edit(coco[1], lambda content: [entry.pop("segmentation") for entry in content["annotations"]])
    assert CocoInstances(*coco).targets == "boxes"
    with pytest.raises(ValueError, match="no annotation has a segmentation"):
        CocoInstances(*coco, targets="masks")
    with pytest.raises(ValueError, match="no category has a list of keypoints"):
        CocoInstances(*coco, targets="keypoints")


def test_keypoints_must_be_the_same_for_all_categories(coco):
    edit(coco[1], lambda content: content["categories"][0].update(keypoints=["tip", "end"]))
    with pytest.raises(ValueError, match=r"category 3 \(bar\) has other keypoints"):
        CocoInstances(*coco, targets="keypoints")
    edit(coco[1], lambda content: content["categories"][1].update(keypoints=["tip", "tip"]))
    with pytest.raises(ValueError, match="category 3 has two keypoints of one name"):
        CocoInstances(*coco, targets="keypoints")
    edit(coco[1], lambda content: content["categories"][1].update(keypoints=5))
    with pytest.raises(ValueError, match="category 3's keypoints are no list of names"):
        CocoInstances(*coco)
