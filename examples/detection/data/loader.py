"""Batches whose order depends on the seed alone, so that a resumed run repeats an uninterrupted one."""

from __future__ import annotations

import multiprocessing
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from detection.data.custom import check_dataset, class_names, describe, read_sample
from detection.data.errors import DamagedSampleError, SampleError
from detection.data.sample import Sample, Transform, checked
from detection.training.interrupts import outlive_signals
from detection.wording import counted

# (index, image, target), or (index, None, message) for an image that was skipped.
Indexed = tuple[int, "Tensor | None", "dict[str, Any] | str"]

IGNORED = ("ignored_boxes", "ignored_labels")


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

    def __init__(self, dataset: Dataset, targets: str, max_ratio: float | None = None, keypoints: int | None = None):
        self.dataset, self.targets, self.max_ratio, self.keypoints = dataset, targets, max_ratio, keypoints
        self.classes = len(class_names(dataset))
        self.skips = getattr(dataset, "damaged", "refuse") == "skip"

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Raises DamagedSampleError for a sample that cannot be used, whether or not such samples are skipped."""
        sample, name = read_sample(self.dataset, index), describe(self.dataset, index)
        return checked(sample, name, self.classes, self.targets, self.max_ratio, keypoints=self.keypoints)


class Augmented(Dataset):
    """Checked samples under transforms, whose random numbers are seeded by the position in the run.

    Where damaged samples are skipped, the next usable one takes the place of each. Ignored boxes, which only an
    evaluation needs, are left out.
    """

    def __init__(self, samples: Checked, transforms: Sequence[Transform], seed: int):
        self.samples, self.transforms, self.seed = samples, transforms, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Exception:
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
            except SampleError as failure:
                return _with_traceback(failure)
            image, target = sample
            sample = image, {name: value for name, value in target.items() if name not in IGNORED}
            for transform in self.transforms:
                sample = transform(sample, generator)
            return sample
        if self.samples.skips:
            return DamagedSampleError(f"none of {counted(len(self), 'image')} can be used; of the last: {error}")
        return error


class Indexing(Dataset):
    """Checked samples with their indices, or with the message why there is none."""

    def __init__(self, samples: Checked):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Indexed | Exception:
        try:
            return (index, *self.samples[index])
        except DamagedSampleError as error:
            return (index, None, str(error)) if self.samples.skips else error
        except SampleError as failure:
            return _with_traceback(failure)


class WorkerError(Exception):
    """What a data set's own code raised in a worker process: the text of its traceback, which cannot be sent itself."""


def _with_traceback(failure: SampleError) -> SampleError:
    """An error that a worker process can send: its cause and traceback would stay behind."""
    failure.traceback = "".join(traceback.format_exception(failure.__cause__))
    return failure


def collate(samples: list[Sample]) -> tuple[list, list]:
    """Lists, not tensors: images may differ in size."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def _collate_or_error(samples: list[Sample | Exception]) -> tuple[list, list] | Exception:
    return next((sample for sample in samples if isinstance(sample, Exception)), None) or collate(samples)


def _indexed_or_error(samples: list[Indexed | Exception]) -> list[Indexed] | Exception:
    return samples[0] if isinstance(samples[0], Exception) else samples


def _start_method() -> str | None:
    """How worker processes begin: on Linux forked, which since Python 3.14 is no longer the default there.

    The default's workers are children of a server process. They outlive a training that was killed, as torch looks for
    their parent, and each would have the data set once more.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    return "fork" if sys.platform == "linux" and chosen in (None, "forkserver") else None


class Loader(DataLoader):
    """A DataLoader that raises a worker's DamagedSampleError as it is, without the worker's traceback.

    A SampleError has what the data set's own code raised as its cause, or from a worker the text of that traceback.
    """

    def __init__(self, dataset: Dataset, *, num_workers: int, **options: Any):
        context = _start_method() if num_workers > 0 else None
        super().__init__(dataset, num_workers=num_workers, multiprocessing_context=context, **options)

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            if isinstance(batch, SampleError) and batch.__cause__ is None:
                raise batch from WorkerError(batch.traceback)
            if isinstance(batch, Exception):
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
    keypoints: int | None = None,
) -> Loader:
    """Endless batches (images, targets) of ``batch`` samples per rank; skips the first ``start`` samples of each rank.

    The samples and their augmentation depend on ``seed`` and the position alone, not on the number of workers.
    ``keypoints`` is the number of an object's keypoints that the model has, where it has some.

    Raises:
        TypeError, ValueError: for a data set that lacks a method, or is empty.
        DamagedSampleError: while iterating, for a sample that cannot be used, unless the data set's ``damaged`` is
            "skip" (the next usable sample takes its place).
        SampleError: while iterating, from other errors of a data set's own code, naming the sample.
    """
    check_dataset(dataset)
    return Loader(
        Augmented(Checked(dataset, targets, max_ratio, keypoints), transforms, seed),
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
    keypoints: int | None = None,
) -> Loader:
    """Every index once, in order, split over ranks: lists of one ``(index, image, target)``.

    Where the data set's ``damaged`` is "skip", an image that cannot be used is ``(index, None, message)``; else it
    raises DamagedSampleError. Other errors of a data set's own code come as SampleError.
    """
    check_dataset(dataset)
    return Loader(
        Indexing(Checked(dataset, targets, max_ratio, keypoints)),
        batch_size=1,
        sampler=range(rank, len(dataset), world_size),
        num_workers=workers,
        collate_fn=_indexed_or_error,
        worker_init_fn=outlive_signals,
    )
