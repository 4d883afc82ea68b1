"""The lists of one kind, as they are written to files, score by pycocotools alone to the reported numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_samples import InMemory, perfect, random_answer, random_samples, score
from test_against_pycocotools import CATEGORY_IDS, METRICS, run_pycocotools, write_json
from test_keypoints import STATISTICS, imprecise, samples_with_keypoints
from test_keypoints import run_pycocotools as run_keypoints


def test_boxes_and_masks(tmp_path):
    dataset = InMemory(random_samples(0))
    dataset.category_ids = CATEGORY_IDS
    write_json(tmp_path / "instances.json", dataset)
    report = score(dataset, random_answer(0), keep_results=True)
    for kind in report.metrics:
        results = json.loads(json.dumps(report.results_of(kind)))
        stats = run_pycocotools(tmp_path / "instances.json", results, kind).stats
        for name, expected in zip(METRICS, stats, strict=False):
            assert abs(report.metrics[kind][name] - expected) < 1e-12, (kind, name)
    fields = {"image_id", "category_id", "score"}
    assert all(set(it) == fields | {"bbox"} for it in report.results_of("bbox"))
    assert all(set(it) == fields | {"segmentation"} for it in report.results_of("segm"))
    # The joint list does not, which is why there are these.
    joint = run_pycocotools(tmp_path / "instances.json", json.loads(json.dumps(report.results)), "segm").stats
    assert abs(report.metrics["segm"]["AP_medium"] - joint[METRICS.index("AP_medium")]) > 1e-3


def test_keypoints(tmp_path):
    dataset = InMemory(samples_with_keypoints(5), ("person",))
    report = score(dataset, imprecise(5), "keypoints", keep_results=True)
    results = json.loads(json.dumps(report.results_of("keypoints")))
    assert all("bbox" not in it for it in results)
    stats = run_keypoints(tmp_path / "keypoints.json", dataset, results, np.full(5, 0.2))
    for name, expected in zip(STATISTICS, stats, strict=False):
        assert abs(report.metrics["keypoints"][name] - expected) < 1e-12, name


def test_a_kind_that_was_not_evaluated_is_named():
    report = score(InMemory(random_samples(0, images=2)), perfect, "boxes", keep_results=True)
    with pytest.raises(ValueError, match="kind is 'segm'; evaluated were 'bbox'"):
        report.results_of("segm")
    assert score(InMemory(random_samples(0, images=2)), perfect).results_of("segm") == []
