"""COCO mask AP by pycocotools."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.models.detection import MaskRCNN
from tqdm import tqdm

from detection import distributed
from detection.data.loader import evaluation_loader

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100")
MASK_THRESHOLD = 0.5


def results_of(image_id: int, prediction: dict[str, Tensor], category_ids: list[int]) -> list[dict[str, Any]]:
    """One image's detections in COCO's results format."""
    masks = (prediction["masks"][:, 0] >= MASK_THRESHOLD).to(torch.uint8).cpu().numpy()
    results = []
    for mask, label, score in zip(masks, prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True):
        encoded = coco_mask.encode(np.asfortranarray(mask))
        encoded["counts"] = encoded["counts"].decode("ascii")
        results.append(
            {"image_id": image_id, "category_id": category_ids[label - 1], "segmentation": encoded, "score": score}
        )
    return results


@torch.no_grad()
def predict_all(
    model: MaskRCNN, dataset: Dataset, category_ids: list[int], device: torch.device, workers: int = 0
) -> list[dict[str, Any]]:
    """The detections of all ranks in COCO's results format, on every rank."""
    model.eval()
    results = []
    loader = evaluation_loader(dataset, workers=workers, rank=distributed.rank(), world_size=distributed.world_size())
    for images, targets in tqdm(
        loader, desc="evaluate", disable=distributed.rank() != 0, file=sys.stdout, mininterval=5
    ):
        predictions = model([image.to(device) for image in images])
        for prediction, target in zip(predictions, targets, strict=True):
            results += results_of(int(target["image_id"]), prediction, category_ids)
    return [result for part in distributed.all_gather(results) for result in part]


def mask_ap(annotations: Path, results: list[dict[str, Any]]) -> dict[str, float]:
    """COCO's metrics for masks, over all classes; all 0 where nothing was detected, -1 for sizes without objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        # loadRes copies an info section, which small data sets lack.
        truth.dataset.setdefault("info", {})
        if not results:
            return dict.fromkeys(METRICS, 0.0)
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # By class: evaluation.eval["precision"], of axes (IoU threshold, recall, class, size, most detections).
    return dict(zip(METRICS, (float(value) for value in evaluation.stats), strict=False))


def evaluate(model: MaskRCNN, dataset: Dataset, device: torch.device, workers: int = 0) -> dict[str, float]:
    """Mask AP on a data set that names its ``annotations`` file and ``category_ids``, as CocoInstances does."""
    for name in ("annotations", "category_ids"):
        if not hasattr(dataset, name):
            raise TypeError(
                f"data set {type(dataset).__qualname__} has no attribute {name}; COCO's evaluation needs it"
            )
    results = predict_all(model, dataset, list(dataset.category_ids), device, workers)
    return mask_ap(Path(dataset.annotations), results)
