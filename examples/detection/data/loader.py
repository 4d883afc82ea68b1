"""Batches whose order depends on the seed alone, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from detection.data.coco_dataset import Sample, Transform
from detection.data.custom import check_dataset


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


class Augmented(Dataset):
    """Samples of another data set under transforms, whose random numbers are seeded by the position in the run."""

    def __init__(self, dataset: Dataset, transforms: Sequence[Transform], seed: int):
        self.dataset, self.transforms, self.seed = dataset, transforms, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        position, index = key
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + position)
        sample = self.dataset[index]
        for transform in self.transforms:
            sample = transform(sample, generator)
        return sample


def collate(samples: list[Sample]) -> tuple[list, list]:
    """Lists, not tensors: images may differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def training_loader(
    dataset: Dataset,
    transforms: Sequence[Transform],
    *,
    batch: int,
    workers: int,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Endless batches of ``batch`` samples per rank; skips the first ``start`` samples of each rank."""
    check_dataset(dataset)
    return DataLoader(
        Augmented(dataset, transforms, seed),
        batch_size=batch,
        sampler=EndlessSampler(len(dataset), seed, rank, world_size, start),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def evaluation_loader(dataset: Dataset, *, workers: int, rank: int = 0, world_size: int = 1) -> DataLoader:
    """Every sample once, in order, split over ranks."""
    check_dataset(dataset)
    return DataLoader(
        dataset,
        batch_size=1,
        sampler=list(range(rank, len(dataset), world_size)),
        num_workers=workers,
        collate_fn=collate,
    )
