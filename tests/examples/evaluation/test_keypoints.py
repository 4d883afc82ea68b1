"""Keypoints score as with pycocotools, whose statistics for them are other ones, in another order."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from detection.data.errors import DamagedSampleError
from detection.evaluation.evaluate import evaluate
from evaluation_samples import CPU, Detector, InMemory, options_for, perfect, random_samples, score
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

STATISTICS = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR_20")


def samples_with_keypoints(points: int, seed: int = 0) -> list[tuple]:
    """People without masks; some have no visible keypoint, which COCO leaves out."""
    generator = np.random.default_rng(seed)
    samples = random_samples(seed)
    for _, target in samples:
        del target["masks"]
        count = len(target["labels"])
        target["labels"] = torch.ones(count, dtype=torch.int64)
        where = torch.from_numpy(generator.uniform(0, 1, (count, points, 2)).astype(np.float32))
        corner, size = target["boxes"][:, None, :2], (target["boxes"][:, 2:] - target["boxes"][:, :2])[:, None]
        visible = torch.from_numpy(generator.integers(0, 3, (count, points, 1)).astype(np.float32))
        visible[torch.from_numpy(generator.uniform(0, 1, count) < 0.2)] = 0
        target["keypoints"] = torch.cat([corner + where * size, visible], dim=2)
        target["keypoints"][visible[..., 0] == 0] = 0
    return samples


def imprecise(points: int):
    generator = np.random.default_rng(1)

    def answer(target):
        count = len(target["labels"])
        spread = generator.choice([0.3, 4, 20, 60], (count, 1, 1)) * 17 / points
        noise = (
            generator.normal(0, 1, (count, points, 2)) * spread * (target["area"][:, None, None].numpy() ** 0.5 / 100)
        )
        keypoints = target["keypoints"].clone()
        keypoints[..., :2] += torch.from_numpy(noise.astype(np.float32))
        keypoints[..., 2] = 1
        scores = torch.from_numpy(generator.uniform(0.05, 1, count).astype(np.float32))
        return {"boxes": target["boxes"], "labels": target["labels"], "scores": scores, "keypoints": keypoints}

    return answer


def run_pycocotools(path, dataset, results, sigmas):
    images, annotations = [], []
    for image, target in dataset.samples:
        images.append({"id": target["image_id"], "height": image.shape[1], "width": image.shape[2]})
        for number, box in enumerate(target["boxes"].tolist()):
            keypoints = target["keypoints"][number]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": target["image_id"],
                    "category_id": 1,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": float(target["area"][number]),
                    "iscrowd": int(target["iscrowd"][number]),
                    "keypoints": keypoints.flatten().tolist(),
                    "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                }
            )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(content))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize(("points", "sigmas"), [(17, None), (5, np.full(5, 0.2))])
def test_keypoints_score_as_with_pycocotools(tmp_path, points, sigmas):
    dataset = InMemory(samples_with_keypoints(points), ("person",))
    report = score(dataset, imprecise(points), "keypoints", keep_results=True)
    results = [{name: value for name, value in it.items() if name != "bbox"} for it in report.results]
    stats = run_pycocotools(tmp_path / "keypoints.json", dataset, results, sigmas)
    for name, expected in zip(STATISTICS, stats, strict=False):
        assert 0.01 < expected < 0.99, name
        assert abs(report.metrics["keypoints"][name] - expected) < 1e-12, name
    assert {report.metrics["keypoints"][name] for name in ("AP_small", "AR_1", "AR_10", "AR_100")} == {-1}
    visible = sum(
        int(((target["keypoints"][..., 2] > 0).any(1) & (target["iscrowd"] == 0)).sum())
        for _, target in dataset.samples
    )
    assert report.per_class["keypoints"]["person"]["objects"] == visible
    assert report.primary == "keypoints"
    assert "AR_20" in report.table()


def test_the_truth_scores_1():
    dataset = InMemory(samples_with_keypoints(17), ("person",))
    assert score(dataset, perfect, "keypoints").metrics["bbox"]["AP"] == pytest.approx(1)

    def seen(target):
        """Objects without a visible keypoint have no place: the data set's is the image's corner."""
        visible = (target["keypoints"][..., 2] > 0).any(1)[target["iscrowd"] == 0]
        return {name: value[visible] for name, value in perfect(target).items()}

    assert score(dataset, seen, "keypoints").metrics["keypoints"]["AP"] == pytest.approx(1)


def test_a_data_set_may_have_both_masks_and_keypoints():
    samples = samples_with_keypoints(5)
    for image, target in samples:
        target["masks"] = torch.ones((len(target["labels"]), *image.shape[1:]), dtype=torch.uint8)
    dataset = InMemory(samples, ("person",))
    for targets, kind in (("masks", "segm"), ("keypoints", "keypoints"), ("boxes", "bbox")):
        assert score(dataset, targets=targets).primary == kind


def test_a_keypoint_model_on_boxes_alone_is_scored_by_boxes():
    samples = samples_with_keypoints(17)
    for _, target in samples:
        del target["keypoints"]
    assert list(score(InMemory(samples, ("person",)), perfect, "keypoints").metrics) == ["bbox"]


def test_results_mark_every_keypoint_as_visible():
    dataset = InMemory(samples_with_keypoints(5), ("person",))
    results = score(dataset, perfect, "keypoints", keep_results=True).results
    assert {value for it in results for value in it["keypoints"][2::3]} == {1}


def test_another_number_of_keypoints_than_the_models_is_named():
    """A list of another length would be scored keypoint by keypoint with others."""
    dataset = InMemory(samples_with_keypoints(5), ("person",))
    options = options_for("keypoints", dataset.names, keypoint_names=tuple("abcdefg"))
    with pytest.raises(DamagedSampleError, match=r"keypoints.* 7"):
        evaluate(Detector(dataset.samples, perfect), dataset, CPU, options=options)
