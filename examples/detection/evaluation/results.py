"""Detections in COCO's results format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from detection.evaluation.records import Objects, Record, detections_of

# What an entry of one kind holds beside ``image_id``, ``category_id`` and ``score``.
FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}


def results_of(image_id: int | str, prediction: dict[str, Tensor], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """One image's detections as COCO results, with the user's ids; ``category_ids`` are of the labels 1, 2, ...

    Each has ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels), ``score``, and, by what the model
    detects, ``segmentation`` (run lengths) or ``keypoints`` (x, y, 1 of each). pycocotools takes an object's area from
    ``bbox`` where there is one: take :func:`of_kind` to get COCO's AP by size of masks or keypoints.
    """
    return _results(image_id, detections_of(prediction), category_ids)


def of_kind(results: Iterable[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The results with the fields of one ``kind`` only, "bbox", "segm" or "keypoints".

    From such a list pycocotools takes each detection's area from what is scored, the mask or the keypoints.
    """
    if kind not in FIELDS:
        raise ValueError(f"kind is {kind!r}; allowed are {', '.join(map(repr, FIELDS))}")
    names = ("image_id", "category_id", FIELDS[kind], "score")
    return [{name: result[name] for name in names} for result in results]


def results_of_records(records: Iterable[Record], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO results of evaluated images, as :func:`results_of`."""
    return [result for record in records for result in _results(record.image_id, record.detections, category_ids)]


def _results(image_id: int | str, found: Objects, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    results = []
    for number, (box, label, score) in enumerate(zip(found.xywh(), found.labels, found.scores, strict=True)):
        if label > len(category_ids):
            raise ValueError(f"the model detects label {label}; there are category ids for 1 to {len(category_ids)}")
        result = {
            "image_id": image_id,
            "category_id": int(category_ids[label - 1]),
            "bbox": box.tolist(),
            "score": float(score),
        }
        if found.masks is not None:
            mask = found.masks[number]
            result["segmentation"] = {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}
        if found.keypoints is not None:
            points = found.keypoints[number].copy()
            points[:, 2] = 1  # COCO's results have no visibility; its server asks for 1
            result["keypoints"] = points.flatten().tolist()
        results.append(result)
    return results
