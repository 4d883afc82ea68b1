"""COCO's metrics by pycocotools: over all classes, and of each."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100")
# COCO allows 20 detections with keypoints an image, and leaves small objects out; its AR is that of 20.
KEYPOINT_METRICS = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR_20")
COCO_KEYPOINTS = 17


def coco_metrics(
    truth: COCO, detections: COCO, kind: str, class_names: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """COCO's metrics for ``kind`` ("bbox", "segm", "keypoints"), and AP, AP50 and the number of objects by class.

    -1 for what has no objects (as COCO has it), 0 where there are objects and no detections. Keypoints have ``AR_20``
    more, and -1 for what COCO does not define for them: ``AP_small``, ``AR_1``, ``AR_10``, ``AR_100``.
    """
    evaluation = COCOeval(truth, detections, kind)
    if kind == "keypoints":
        evaluation.params.kpt_oks_sigmas = oks_sigmas(truth, evaluation.params.kpt_oks_sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = KEYPOINT_METRICS if kind == "keypoints" else METRICS
    metrics = dict.fromkeys(METRICS, -1.0)
    metrics.update((name, float(value)) for name, value in zip(names, evaluation.stats, strict=False))
    return metrics, _by_class(evaluation, class_names)


def oks_sigmas(truth: COCO, standard: np.ndarray) -> np.ndarray:
    """How exactly people annotate each keypoint (K,): COCO's where there are 17, else 1/K for each, as ultralytics."""
    annotations = truth.dataset["annotations"]
    points = len(annotations[0]["keypoints"]) // 3 if annotations else COCO_KEYPOINTS
    return standard if points == COCO_KEYPOINTS else np.full(points, 1 / points)


def _by_class(evaluation: COCOeval, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    precision = evaluation.eval["precision"]  # (IoU threshold, recall, class, size, most detections)
    objects = dict.fromkeys(range(1, len(class_names) + 1), 0)
    whole = list(evaluation.params.areaRng[0])  # objects of all sizes
    for image in evaluation.evalImgs:
        if image is not None and list(image["aRng"]) == whole:
            objects[int(image["category_id"])] += int((image["gtIgnore"] == 0).sum())
    by_class = {}
    for number, name in enumerate(class_names):
        of_class = precision[:, :, number, 0, -1]
        by_class[name] = {
            "AP": _mean(of_class),
            "AP50": _mean(of_class[0]),
            "objects": objects[number + 1],
        }
    return by_class


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0
