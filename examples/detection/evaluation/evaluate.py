"""Runs a detector over a data set and scores it against the data set's own samples."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sized
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from detection import distributed
from detection.data.coco_dataset import CocoInstances
from detection.data.custom import category_ids, targets_of
from detection.data.loader import evaluation_loader
from detection.evaluation.metrics import coco_metrics
from detection.evaluation.records import MASK_THRESHOLD, Record, detections_of, ignored_in, truth_of
from detection.evaluation.report import Report
from detection.evaluation.results import results_of
from detection.evaluation.truth import coco_detections, coco_truth
from detection.models.options import ModelOptions

__all__ = ["MASK_THRESHOLD", "evaluate", "results_of"]

KINDS = {"masks": ("bbox", "segm"), "keypoints": ("bbox", "keypoints"), "boxes": ("bbox",)}


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    device: torch.device,
    *,
    options: ModelOptions,
    workers: int = 0,
    keep_results: bool = False,
) -> Report:
    """COCO's metrics of ``model``, one of torchvision's detectors, on ``dataset``.

    Boxes always count; masks or keypoints where both the model and the data set have them. Each rank predicts its share
    of the images, all return the same report. Images that the data set skips as damaged are neither predicted nor
    missed, but counted. Annotations that it skips count as no objects; where it says where they are (``ignored_boxes``
    and ``ignored_labels`` of its targets), detections of their class there are neither right nor wrong, as in a crowd.
    The model is back in its mode (training or not) afterwards.

    Args:
        options: the model's: its classes, and whether it gives masks or keypoints.
        workers: processes that load data.
        keep_results: keep ``Report.records`` and ``Report.results`` (about 50 KB for an image of 100 masks).

    Raises:
        DamagedSampleError: for a damaged sample of a data set that refuses them.
        ValueError: for an empty data set, one whose classes are not the model's or whose ``category_ids`` are no list
            of their ids, and for output that is not finite.
    """
    if len(dataset) == 0:
        raise ValueError("the data set is empty; there is nothing to evaluate")
    _check_classes(dataset, options)
    targets, ids = _targets(dataset, options), _category_ids(dataset, options)
    records, skipped = _gathered(*_share(model, dataset, device, options, targets, workers))
    truth = coco_truth(records, options.class_names)
    scores = {
        kind: coco_metrics(truth, coco_detections(records, options.class_names, kind), kind, options.class_names)
        for kind in KINDS[targets]
    }
    return Report(
        metrics={kind: overall for kind, (overall, _) in scores.items()},
        per_class={kind: by_class for kind, (_, by_class) in scores.items()},
        images=len(records),
        skipped_images=len(skipped),
        skipped_annotations=sum(record.skipped for record in records) + _stray(dataset),
        dropped_objects=sum(record.dropped for record in records),
        ignored_regions=sum(record.ignored for record in records),
        skipped=skipped,
        category_ids=ids,
        records=records if keep_results else [],
    )


def _check_classes(dataset: Dataset, options: ModelOptions) -> None:
    if not hasattr(dataset, "class_names"):
        return  # a custom data set, whose labels the loader checks
    names = tuple(dataset.class_names())
    if names != tuple(options.class_names):
        known, has = (", ".join(it) if len(it) <= 20 else f"{len(it)} classes" for it in (options.class_names, names))
        raise ValueError(
            f"the model's classes are {known}; the data set has {has}. They must be the same, in the same order"
        )


def _targets(dataset: Dataset, options: ModelOptions) -> str:
    """What is scored beside boxes: what the model gives, where the data set has it, too."""
    if options.targets == "boxes":
        return "boxes"
    return options.targets if targets_of(dataset, options.targets) == options.targets else "boxes"


def _stray(dataset: Dataset) -> int:
    """Annotations of no image, which are not counted with any."""
    return len(dataset.stray) if isinstance(dataset, CocoInstances) else 0


def _category_ids(dataset: Dataset, options: ModelOptions) -> list[int]:
    """The data set's, for it is its JSON that results are compared with; else the checkpoint's, else the labels."""
    ids = getattr(dataset, "category_ids", None)
    if ids is None or (isinstance(ids, Sized) and len(ids) == 0):
        return list(options.category_ids) or list(range(1, len(options.class_names) + 1))
    return category_ids(dataset, len(options.class_names))


@torch.no_grad()
def _share(
    model: nn.Module, dataset: Dataset, device: torch.device, options: ModelOptions, targets: str, workers: int
) -> tuple[list[Record], list[tuple[int, str]]]:
    """This rank's records, and (index, message) of its skipped images."""
    rank, world_size = distributed.rank(), distributed.world_size()
    loader = evaluation_loader(
        dataset,
        workers=workers,
        targets=targets,
        rank=rank,
        world_size=world_size,
        max_ratio=options.max_size,
        keypoints=(len(options.keypoint_names) or None) if targets == "keypoints" else None,
    )
    records: list[Record] = []
    skipped: list[tuple[int, str]] = []
    with _evaluating(model):
        for samples in tqdm(loader, desc="evaluate", disable=rank != 0, file=sys.stdout, mininterval=5):
            for index, image, target in samples:
                if image is None:
                    skipped.append((index, target))
                    continue
                (prediction,) = model([image.to(device)])
                records.append(_record(index, image, target, prediction, options, targets))
        if _is_sharded(model):
            # A sharded model is called by all ranks together: who has fewer images makes up for it.
            for _ in range(-(-len(dataset) // world_size) - len(records)):
                model([torch.zeros(3, 64, 64, device=device)])
    return records, skipped


def _record(
    index: int, image: torch.Tensor, target: dict, prediction: dict, options: ModelOptions, targets: str
) -> Record:
    detections = detections_of({name: value for name, value in prediction.items() if name in _KEPT[targets]})
    if len(detections) and not 1 <= detections.labels.min() <= detections.labels.max() <= len(options.class_names):
        labels = sorted(set(detections.labels.tolist()))
        raise ValueError(f"the model detects labels {labels}; its options name {len(options.class_names)} classes")
    size = image.shape[-2], image.shape[-1]
    return Record(
        index=index,
        image_id=_image_id(index, target),
        size=size,
        truth=truth_of(target, targets, size),
        detections=detections,
        skipped=int(target.get("skipped", 0)),
        dropped=int(target.get("dropped", 0)),
        ignored=ignored_in(target),
    )


def _image_id(index: int, target: dict) -> int | str:
    """The user's; where there is none, or None, the index."""
    image_id = target.get("image_id")
    if image_id is None:
        return index
    try:
        return image_id if isinstance(image_id, str) else int(image_id)
    except (TypeError, ValueError):
        raise ValueError(
            f"image_id of sample {index} is {image_id!r}; it must be a whole number, a text, or None"
        ) from None


_KEPT = {name: {"boxes", "labels", "scores", name} for name in KINDS}


def _gathered(records: list[Record], skipped: list[tuple[int, str]]) -> tuple[list[Record], list[str]]:
    """Of all ranks, in the order of the data set, so that the number of ranks changes nothing."""
    parts = distributed.all_gather((records, skipped))
    whole = sorted((record for part, _ in parts for record in part), key=lambda record: record.index)
    left_out = sorted(entry for _, part in parts for entry in part)
    return whole, [message for _, message in left_out]


def _is_sharded(model: nn.Module) -> bool:
    if distributed.world_size() == 1:
        return False
    from torch.distributed.fsdp import FSDPModule  # not there in a torch without torch.distributed

    return any(isinstance(module, FSDPModule) for module in model.modules())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, then each in its own mode as before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
