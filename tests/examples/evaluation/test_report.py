"""The report as a table and as JSON."""

from __future__ import annotations

import json

import pytest
from detection.evaluation.metrics import METRICS
from detection.evaluation.report import Report
from evaluation_samples import InMemory, random_answer, random_samples, score

WIDTH = 100


def report_of(names: list[str], kinds=("bbox", "segm", "keypoints"), **counts) -> Report:
    metrics = {kind: {**dict.fromkeys(METRICS, 0.123456789), "AR_20": 0.2, "AP_large": -1} for kind in kinds}
    by_class = {name: {"AP": 0.5, "AP50": -1, "objects": 123456} for name in names}
    return Report(metrics, dict.fromkeys(kinds, by_class), 5000, **counts)


def test_the_table_reads_as_this():
    report = report_of(["zebra", "ape"], ["bbox", "segm"], skipped_annotations=2)
    assert report.table().splitlines() == [
        "               AP    AP50    AP75  AP_small  AP_medium  AP_large    AR_1   AR_10  AR_100",
        "bbox        0.123   0.123   0.123     0.123      0.123         -   0.123   0.123   0.123",
        "segm        0.123   0.123   0.123     0.123      0.123         -   0.123   0.123   0.123",
        "",
        "class  bbox AP    AP50  segm AP    AP50  objects",
        "ape      0.500       -    0.500       -   123456",
        "zebra    0.500       -    0.500       -   123456",
        "",
        "images: 5000, skipped annotations: 2",
    ]


@pytest.mark.parametrize("kinds", [["bbox"], ["bbox", "segm"], ["bbox", "keypoints"]])
def test_no_line_is_wider_than_100_columns(kinds):
    names = ["a" * 300, "two\nlines\tof a name", *(f"class {number}" for number in range(200))]
    counts = dict.fromkeys(("skipped_images", "skipped_annotations", "dropped_objects"), 10**7)
    lines = report_of(names, kinds, **counts).table().splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert "and 102 more classes" in lines
    assert any(line.startswith("aaa") and "...  " in line for line in lines)
    assert all(not line.startswith("lines") for line in lines)


def test_a_minus_1_is_no_number_for_a_reader():
    assert "-1" not in report_of(["ape"]).table()


@pytest.mark.parametrize(
    ("kinds", "primary"),
    [(["bbox"], "bbox"), (["bbox", "segm"], "segm"), (["bbox", "keypoints"], "keypoints")],
)
def test_the_primary_kind_is_what_the_model_is_for(kinds, primary):
    assert report_of(["ape"], kinds).primary == primary


def test_the_dict_is_the_whole_of_it_unrounded():
    report = score(InMemory(random_samples(0, images=6)), random_answer(0), keep_results=True)
    read = json.loads(json.dumps(report.as_dict()))
    assert read == report.as_dict()
    assert read["metrics"] == report.metrics
    assert read["per_class"]["segm"]["disc"] == report.per_class["segm"]["disc"]
    assert read["images"] == 6
    value = read["metrics"]["bbox"]["AP"]
    assert value != round(value, 6)
