"""Batches whose order depends on the seed alone, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from detection.data.custom import check_dataset, class_names
from detection.data.errors import DamagedSampleError
from detection.data.sample import Sample, Transform, checked
from detection.training.interrupts import outlive_signals

# (index, image, target), or (index, None, message) for an image that was skipped.
Indexed = tuple[int, "Tensor | None", "dict[str, Any] | str"]


class EndlessSampler(Sampler):
    """Endless (position, index): each epoch in a new order, split over ranks; skips each rank's first ``start``."""

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1, start: int = 0):
        if length < 1:
            raise ValueError("the data set is empty")
        self.length, self.seed, self.rank, self.world_size, self.start = length, seed, rank, world_size, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.start * self.world_size + self.rank
        epoch, order = -1, torch.empty(0)
        while True:
            if position // self.length != epoch:
                epoch = position // self.length
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.length, generator=generator)
            yield position, int(order[position % self.length])
            position += self.world_size


class Checked(Dataset):
    """Samples of another data set, checked, under the name by which the data set describes them."""

    def __init__(self, dataset: Dataset, targets: str, max_ratio: float | None = None):
        self.dataset, self.targets, self.max_ratio = dataset, targets, max_ratio
        self.classes = len(class_names(dataset))
        self.skips = getattr(dataset, "damaged", "refuse") == "skip"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Raises DamagedSampleError for a sample that cannot be used, whether or not such samples are skipped."""
        sample = self.dataset.read(index) if hasattr(self.dataset, "read") else self.dataset[index]
        name = self.dataset.describe(index) if hasattr(self.dataset, "describe") else f"sample {index}"
        return checked(sample, name, self.classes, self.targets, self.max_ratio)


class Augmented(Dataset):
    """Checked samples under transforms, whose random numbers are seeded by the position in the run.

    Where damaged samples are skipped, the next usable one takes the place of each.
    """

    def __init__(self, samples: Checked, transforms: Sequence[Transform], seed: int):
        self.samples, self.transforms, self.seed = samples, transforms, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Sample | DamagedSampleError:
        position, index = key
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
        error = None
        for following in range(len(self)):
            try:
                sample = self.samples[(index + following) % len(self)]
            except DamagedSampleError as damage:
                error = damage
                if self.samples.skips:
                    warnings.warn(f"skipped: {damage}", stacklevel=2)
                    continue
                break
            for transform in self.transforms:
                sample = transform(sample, generator)
            return sample
        if self.samples.skips:
            return DamagedSampleError(f"none of the {len(self)} images can be used; of the last: {error}")
        return error


class Indexing(Dataset):
    """Checked samples with their indices, or with the message why there is none."""

    def __init__(self, samples: Checked):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Indexed | DamagedSampleError:
        try:
            return (index, *self.samples[index])
        except DamagedSampleError as error:
            return (index, None, str(error)) if self.samples.skips else error


def collate(samples: list[Sample]) -> tuple[list, list]:
    """Lists, not tensors: images may differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def _collate_or_error(samples: list[Sample | DamagedSampleError]) -> tuple[list, list] | DamagedSampleError:
    return next((sample for sample in samples if isinstance(sample, DamagedSampleError)), None) or collate(samples)


def _indexed_or_error(samples: list[Indexed | DamagedSampleError]) -> list[Indexed] | DamagedSampleError:
    return samples[0] if isinstance(samples[0], DamagedSampleError) else samples


class Loader(DataLoader):
    """A DataLoader that raises a worker's DamagedSampleError as it is, without the worker's traceback."""

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            if isinstance(batch, DamagedSampleError):
                raise batch
            yield batch


def training_loader(
    dataset: Dataset,
    transforms: Sequence[Transform],
    *,
    batch: int,
    workers: int,
    seed: int,
    targets: str,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    max_ratio: float | None = None,
) -> Loader:
    """Endless batches (images, targets) of ``batch`` samples per rank; skips the first ``start`` samples of each rank.

    The samples and their augmentation depend on ``seed`` and the position alone, not on the number of workers.

    Raises:
        TypeError, ValueError: for a data set that lacks a method, or is empty.
        DamagedSampleError: while iterating, for a sample that cannot be used, unless the data set's ``damaged`` is
            "skip" (the next usable sample takes its place).
    """
    check_dataset(dataset)
    return Loader(
        Augmented(Checked(dataset, targets, max_ratio), transforms, seed),
        batch_size=batch,
        sampler=EndlessSampler(len(dataset), seed, rank, world_size, start),
        num_workers=workers,
        collate_fn=_collate_or_error,
        worker_init_fn=outlive_signals,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def evaluation_loader(
    dataset: Dataset,
    *,
    workers: int,
    targets: str,
    rank: int = 0,
    world_size: int = 1,
    max_ratio: float | None = None,
) -> Loader:
    """Every index once, in order, split over ranks: lists of one ``(index, image, target)``.

    Where the data set's ``damaged`` is "skip", an image that cannot be used is ``(index, None, message)``; else it
    raises DamagedSampleError.
    """
    check_dataset(dataset)
    return Loader(
        Indexing(Checked(dataset, targets, max_ratio)),
        batch_size=1,
        sampler=range(rank, len(dataset), world_size),
        num_workers=workers,
        collate_fn=_indexed_or_error,
        worker_init_fn=outlive_signals,
    )
