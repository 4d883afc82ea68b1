"""The batches of a training, from where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from detection import distributed
from detection.data.loader import training_loader
from detection.data.transforms import make_transforms
from detection.training.console import say
from detection.training.state import TrainingState

Batch = tuple[list[Tensor], list[dict[str, Any]]]
EMPTY = 50  # batches in a row without an object, after which it is said


def batches(state: TrainingState, dataset: Dataset) -> Iterator[Batch]:
    """This rank's."""
    options, model, world_size = state.options, state.model_options, distributed.world_size()
    loader = training_loader(
        dataset,
        make_transforms(options.augment, model.keypoint_names or None),
        batch=options.batch,
        workers=options.workers,
        seed=options.seed,
        targets=model.targets,
        keypoints=len(model.keypoint_names) if model.targets == "keypoints" else None,
        start=-(-state.samples // world_size),
        rank=distributed.rank(),
        world_size=world_size,
        max_ratio=model.max_size,
    )
    return watched(iter(loader))


def watched(source: Iterator[Batch]) -> Iterator[Batch]:
    """``source``; says once where ``EMPTY`` batches in a row have no object to learn."""
    empty = 0
    for images, targets in source:
        empty = 0 if any(_has_objects(target) for target in targets) else empty + 1
        if empty == EMPTY:
            say(
                f"warning: {EMPTY} batches in a row have no object, of which a detector learns to find nothing; look "
                "at the annotations (`check` counts them) and at what the augmentation leaves of them"
            )
            yield images, targets
            yield from source
            return
        yield images, targets


def _has_objects(target: dict[str, Any]) -> bool:
    """Crowd regions are not learnt."""
    crowd = target.get("iscrowd")
    return len(target["labels"]) > 0 if crowd is None else bool((crowd == 0).any())
