"""Batches in an order that depends on the seed alone, so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from detection.check_dataset import check_dataset
from detection.coco_dataset import Sample, Transform


class EndlessSampler(Sampler):
    """(position, index) for ever: epoch after epoch in a new order, split over ranks; ``start`` positions are left out."""

    def __init__(self, length: int, seed: int, rank: int = 0, ranks: int = 1, start: int = 0):
        if length < 1:
            raise ValueError("the data set is empty")
        self.length, self.seed, self.rank, self.ranks, self.start = length, seed, rank, ranks, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.start * self.ranks + self.rank
        epoch, order = -1, torch.empty(0)
        while True:
            if position // self.length != epoch:
                epoch = position // self.length
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                order = torch.randperm(self.length, generator=generator)
            yield position, int(order[position % self.length])
            position += self.ranks


class Augmented(Dataset):
    """Samples of another data set under transforms whose random numbers go by the position in the run."""

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
    """Images of different sizes stay a list."""
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
    ranks: int = 1,
) -> DataLoader:
    """Endless batches of ``batch`` samples per rank; the first ``start`` samples of each rank are left out."""
    check_dataset(dataset)
    return DataLoader(
        Augmented(dataset, transforms, seed),
        batch_size=batch,
        sampler=EndlessSampler(len(dataset), seed, rank, ranks, start),
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def evaluation_loader(dataset: Dataset, *, workers: int, rank: int = 0, ranks: int = 1) -> DataLoader:
    """Every sample once, each on one rank, in order."""
    check_dataset(dataset)
    return DataLoader(
        dataset,
        batch_size=1,
        sampler=list(range(rank, len(dataset), ranks)),
        num_workers=workers,
        collate_fn=collate,
    )
