"""Data sets in memory, detectors that know the answers, and evaluation with a small set of options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detection.evaluation.evaluate import evaluate
from detection.evaluation.report import Report
from detection.models.options import ModelOptions
from torch import Tensor, nn

CPU = torch.device("cpu")
NAMES = ("bar", "square", "disc")
KINDS = {"masks": "maskrcnn", "boxes": "fasterrcnn", "keypoints": "keypointrcnn"}


class InMemory:
    """A custom data set of given samples. It has nothing but what the protocol asks for."""

    def __init__(self, samples: list[tuple[Tensor, dict[str, Any]]], names: tuple[str, ...] = NAMES):
        self.samples, self.names = samples, names

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        return self.samples[index]

    def class_names(self) -> list[str]:
        return list(self.names)


class Detector(nn.Module):
    """Answers each image of ``samples`` with ``answer(target)``; knows images by their pixels."""

    def __init__(self, samples: list[tuple[Tensor, dict[str, Any]]], answer: Callable[[dict[str, Any]], dict]):
        super().__init__()
        self.answers = {image.numpy().tobytes(): answer(target) for image, target in samples}

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self.answers[image.numpy().tobytes()] for image in images]


def perfect(target: dict[str, Any]) -> dict[str, Tensor]:
    """The truth, as a torchvision detector gives it; crowds are nothing to be detected."""
    single = target["iscrowd"] == 0 if "iscrowd" in target else torch.ones(len(target["labels"]), dtype=torch.bool)
    prediction = {
        "boxes": target["boxes"][single],
        "labels": target["labels"][single],
        "scores": torch.full((int(single.sum()),), 0.9),
    }
    if "masks" in target:
        prediction["masks"] = target["masks"][single].float()[:, None]
    if "keypoints" in target:
        prediction["keypoints"] = target["keypoints"][single]
    return prediction


def options_for(targets: str = "masks", names: tuple[str, ...] = NAMES, **others: Any) -> ModelOptions:
    return ModelOptions(class_names=names, kind=KINDS[targets], **others)


def score(dataset: Any, answer: Callable[[dict], dict] = perfect, targets: str = "masks", **others: Any) -> Report:
    """Evaluates a detector that answers an image of the in-memory ``dataset`` with ``answer(target)``."""
    detector = Detector(dataset.samples, answer)
    return evaluate(detector, dataset, CPU, options=options_for(targets, dataset.names), **others)


def rectangle(size: tuple[int, int], x: int, y: int, width: int, height: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def sample_of(seed: int, size: tuple[int, int], boxes: list[tuple[int, int, int, int]], labels: list[int]) -> tuple:
    """An image of noise, and objects that fill the given boxes (x, y, width, height)."""
    image = torch.rand((3, *size), generator=torch.Generator().manual_seed(seed))
    corners = [[x, y, x + width, y + height] for x, y, width, height in boxes]
    masks = [rectangle(size, *box) for box in boxes]
    target = {
        "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.stack(masks) if masks else torch.zeros((0, *size), dtype=torch.uint8),
    }
    return image, target


def random_samples(seed: int, images: int = 20, size: tuple[int, int] = (220, 260)) -> list[tuple]:
    """Ellipses of all of COCO's three sizes, three classes, every seventh a crowd; user's image ids 100, 107, ..."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    samples = []
    for number in range(images):
        masks, labels = [], []
        for _ in range(int(generator.integers(0, 9))):
            radii = generator.choice([6, 9, 25, 40, 80]) * generator.uniform(0.7, 1.2, 2)
            centre = generator.uniform((0, 0), size)
            mask = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1
            if mask.any():
                masks.append(torch.from_numpy(mask.astype(np.uint8)))
                labels.append(int(generator.integers(1, 4)))
        boxes = [_box(mask) for mask in masks]
        target = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "masks": torch.stack(masks) if masks else torch.zeros((0, *size), dtype=torch.uint8),
            "iscrowd": torch.from_numpy((generator.integers(0, 7, len(masks)) == 0).astype(np.int64)),
            "area": torch.tensor([float(mask.sum()) for mask in masks]),
            "image_id": 100 + 7 * number,
        }
        samples.append((torch.rand((3, *size), generator=torch.Generator().manual_seed(number)), target))
    return samples


def _box(mask: Tensor) -> list[int]:
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def random_answer(seed: int) -> Callable[[dict], dict]:
    """A middling detector: shifts objects, misses some, confuses classes, invents others; scores at random."""
    generator = np.random.default_rng(seed)

    def answer(target: dict[str, Any]) -> dict[str, Tensor]:
        height, width = target["masks"].shape[-2:]
        masks, labels, boxes = [], [], []
        for mask, label, box in zip(target["masks"], target["labels"].tolist(), target["boxes"], strict=True):
            for _ in range(int(generator.integers(0, 3))):
                shift = generator.integers(-3, 4, 2).tolist()
                masks.append(mask.roll(shift, (0, 1)))
                boxes.append(box + torch.tensor(generator.uniform(-4, 4, 4), dtype=torch.float32))
                labels.append(label if generator.uniform() < 0.8 else int(generator.integers(1, 4)))
        for _ in range(int(generator.integers(0, 4))):
            x, y, w, h = (generator.uniform(0, 1, 4) * (width - 60, height - 60, 59, 59)).astype(int).tolist()
            masks.append(rectangle((height, width), x, y, w + 1, h + 1))
            boxes.append(torch.tensor([x, y, x + w + 1.5, y + h + 1.25]))
            labels.append(int(generator.integers(1, 4)))
        return {
            "boxes": torch.stack(boxes) if boxes else torch.zeros(0, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
            "scores": torch.from_numpy(generator.uniform(0.05, 1, len(labels)).astype(np.float32)),
            "masks": torch.stack(masks).float()[:, None] if masks else torch.zeros(0, 1, height, width),
        }

    return answer
