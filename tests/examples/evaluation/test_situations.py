"""A detector that finds every object has AP 1.0, whatever the user's JSON is like."""

from __future__ import annotations

import warnings

import pytest
from coco_situations import (
    CATEGORIES,
    DAMAGED,
    OBJECTS,
    SITUATIONS,
    WITHOUT_AREA,
    Oracle,
    clean_content,
    with_annotation,
    write,
)
from detection.data.coco_dataset import CocoInstances
from detection.evaluation.evaluate import evaluate
from evaluation_samples import CPU, options_for

NAMES = tuple(CATEGORIES.values())


def evaluate_oracle(folder, content, damaged="refuse", crowds=(), spoil=None, **others):
    images, annotations = write(folder, content)
    oracle = Oracle(images, crowds)
    if spoil:
        spoil(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if damaged == "skip" else "error")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="pycocotools")
        dataset = CocoInstances(images, annotations, damaged)
        return evaluate(oracle, dataset, CPU, options=options_for(names=NAMES), **others)


def objects_of(report) -> int:
    return sum(of_class["objects"] for of_class in report.per_class["segm"].values())


def assert_right(report, objects: int, images: int) -> None:
    """AP 1.0 for boxes and masks, of as many objects and images as there are."""
    for kind in ("bbox", "segm"):
        for name in ("AP", "AP50", "AP75", "AR_100"):
            assert report.metrics[kind][name] == pytest.approx(1.0), (kind, name)
        for name, of_class in report.per_class[kind].items():
            assert of_class["objects"] == 0 or of_class["AP"] == pytest.approx(1.0), (kind, name)
    assert (objects_of(report), report.images) == (objects, images)


ALL = sum(len(objects) for objects in OBJECTS.values())


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_truth_scores_1(tmp_path, name):
    content = clean_content()
    SITUATIONS[name](content)
    report = evaluate_oracle(tmp_path, content, keep_results=True)
    assert_right(report, ALL, len(OBJECTS))
    assert (report.skipped_images, report.skipped_annotations, report.dropped_objects) == (0, 0, 0)
    categories = {entry["id"] for entry in content["categories"]}
    images = {entry["image_id"] for entry in content["annotations"]}
    assert {it["category_id"] for it in report.results} == categories
    assert {it["image_id"] for it in report.results} == images


@pytest.mark.parametrize("crowds", [(("one.png", 1),), (("one.png", 0), ("four.png", 2))])
def test_crowds_are_not_to_be_found(tmp_path, crowds):
    content = clean_content()
    starts = {name: sum(map(len, list(OBJECTS.values())[:number])) for number, name in enumerate(OBJECTS)}
    for name, number in crowds:
        content["annotations"][starts[name] + number]["iscrowd"] = 1
    assert_right(evaluate_oracle(tmp_path / "not found", content, crowds=crowds), ALL - len(crowds), len(OBJECTS))
    assert_right(evaluate_oracle(tmp_path / "found", content), ALL - len(crowds), len(OBJECTS))


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_annotation_is_skipped_and_counted(tmp_path, name):
    report = evaluate_oracle(tmp_path, with_annotation(DAMAGED[name]), "skip")
    assert_right(report, ALL, len(OBJECTS))
    assert (report.skipped_images, report.skipped_annotations, report.dropped_objects) == (0, 1, 0)
    assert "skipped annotations: 1" in report.table()


@pytest.mark.parametrize("damaged", ["refuse", "skip"])
@pytest.mark.parametrize("name", WITHOUT_AREA)
def test_an_object_without_area_is_dropped_and_counted(tmp_path, name, damaged):
    report = evaluate_oracle(tmp_path, with_annotation(WITHOUT_AREA[name]), damaged)
    assert_right(report, ALL, len(OBJECTS))
    assert (report.skipped_images, report.skipped_annotations, report.dropped_objects) == (0, 0, 1)


@pytest.mark.parametrize("kind", ["not there", "half a file", "no image", "empty"])
def test_an_unreadable_image_is_skipped_and_its_objects_are_not_missed(tmp_path, kind):
    def spoil(images):
        path = images / "four.png"
        content = path.read_bytes()
        path.unlink()
        if kind != "not there":
            path.write_bytes({"half a file": content[:200], "no image": b"text", "empty": b""}[kind])

    report = evaluate_oracle(tmp_path, clean_content(), "skip", spoil=spoil)
    assert_right(report, ALL - len(OBJECTS["four.png"]), len(OBJECTS) - 1)
    assert report.skipped_images == 1
    assert "four.png" in report.skipped[0]


def duplicate_image_id(content):
    content["images"][1]["id"] = 1


def image_listed_twice(content):
    content["images"].append({**content["images"][0], "id": 6})


def duplicate_category_id(content):
    content["categories"][1]["id"] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (duplicate_image_id, r"image id 1 .*twice.*one\.png.*two\.png"),
        (image_listed_twice, r"one\.png.*twice.*1 and 6"),
        (duplicate_category_id, "category id 1 .*twice.*bar.*square"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_before_anything_runs(tmp_path, change, message):
    content = clean_content()
    change(content)
    images, annotations = write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        CocoInstances(images, annotations)
