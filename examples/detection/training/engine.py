"""The training loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.utils.data import Dataset

from detection import distributed
from detection.data.custom import check_dataset
from detection.data.loader import training_loader
from detection.data.transforms import make_transforms
from detection.models.options import ModelOptions
from detection.training import checkpoint
from detection.training.console import Progress
from detection.training.curves import draw_curves
from detection.training.interrupts import Interrupted, Interrupts
from detection.training.log import LINES, Log
from detection.training.options import TrainOptions
from detection.training.start import begin
from detection.training.state import TrainingState
from detection.training.step import step
from detection.training.validation import validate


def train(
    dataset: Dataset,
    model_options: ModelOptions,
    options: TrainOptions,
    folder: Path,
    device: torch.device,
    *,
    validation: Dataset | None = None,
    weights: Any = None,
    weights_eps: float | None = None,
) -> nn.Module:
    """Trains, or goes on from ``folder/checkpoint.pt`` where there is one and ``options.resume``.

    A resumed run sees the same samples under the same augmentation as one that was never interrupted; with one thread
    on a CPU its weights have the same bits. Writes to ``folder``: ``checkpoint.pt``, ``best.pt`` (of the greatest AP on
    ``validation``), ``options.yaml``, ``log.jsonl``, ``log.csv`` and ``curves.png``.

    Args:
        dataset: of CocoInstances or a class of the user's own.
        validation: evaluated every ``options.evaluate_every`` iterations and at the end, where that is not 0.
        weights: what to start from, as :func:`load_pretrained` takes it; not used in a run that is resumed.
        weights_eps: its ``eps``.

    Returns:
        The model in eval mode, with the averaged weights where ``options.ema``; on every rank whole.

    Raises:
        TypeError: for a data set that lacks a method, see :func:`check_dataset`.
        ValueError: for a checkpoint of another training, or a loss that is NaN or infinite.
        SaveError: where a checkpoint cannot be written.
        Interrupted: after Ctrl-C or SIGTERM; all is saved.
    """
    for it in (dataset, validation):
        if it is not None:
            check_dataset(it)
    model_options = model_options.resolved(weights is not None)
    with distributed.failing_together(), Interrupts(announce=distributed.rank() == 0) as interrupts:
        state, wrapped = begin(dataset, model_options, options, folder / "checkpoint.pt", device, weights, weights_eps)
        with _log(state, folder, weights, weights_eps) as log:
            _run(state, wrapped, dataset, validation if options.evaluate_every else None, folder, log, interrupts)
        if distributed.rank() == 0:
            draw_curves(folder / LINES, folder / "curves.png")
        return state.result()


@contextmanager
def _log(state: TrainingState, folder: Path, weights: Any, weights_eps: float | None) -> Iterator[Log | None]:
    """The log, on rank 0; and what else belongs to the beginning of a run in ``folder``."""
    if distributed.rank() != 0:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    best = folder / "best.pt"
    if state.iteration == 0 and best.exists():
        best.replace(folder / "best_before.pt")  # of an earlier training: not this one's best, and not ours to remove
    content = {"model": state.model_options.as_dict(), "train": state.options.as_dict()}
    if isinstance(weights, (str, Path)):
        content["weights"] = str(weights)
        if weights_eps is not None:
            content["weights_eps"] = weights_eps
    text = yaml.safe_dump(_lists(content), sort_keys=False, allow_unicode=True)
    (folder / "options.yaml").write_text(text, encoding="utf-8")
    log = Log(folder, state.iteration, state.options.log_every)
    try:
        yield log
    finally:
        log.close()


def _lists(value: Any) -> Any:
    """YAML has no tuples."""
    if isinstance(value, dict):
        return {name: _lists(it) for name, it in value.items()}
    return [_lists(it) for it in value] if isinstance(value, (list, tuple)) else value


def _run(
    state: TrainingState,
    wrapped: nn.Module,
    dataset: Dataset,
    validation: Dataset | None,
    folder: Path,
    log: Log | None,
    interrupts: Interrupts,
) -> None:
    options = state.options
    limit = options.iterations if options.stop_after is None else state.iteration + options.stop_after
    last = min(options.iterations, limit)

    def check() -> None:
        due = state.iteration % options.evaluate_every == 0 or state.iteration == options.iterations
        if due and state.validated < state.iteration:
            validate(state, validation, folder, log, interrupts)

    def save() -> None:
        content = state.as_dict()
        if log is not None:
            log.sync()
            checkpoint.save(folder / "checkpoint.pt", content)
        distributed.barrier()

    state.model.train()
    stopping = False
    batches = _batches(state, dataset) if state.iteration < last else iter(())
    progress = Progress(state.iteration, options.iterations, options.log_every)
    try:
        if validation is not None and state.iteration:
            check()  # where the run before was interrupted in it
        if state.iteration >= last:
            save()
        while state.iteration < last:
            record, stopping = step(state, wrapped, batches, lambda: interrupts.requested)
            if log is not None:
                log.training(record)
            progress.update(record)
            if validation is not None and not stopping:
                check()
            if state.iteration % options.save_every == 0 or state.iteration == last or stopping:
                save()
            if stopping and state.iteration < options.iterations:
                raise Interrupted
    except Interrupted:
        if not stopping:  # in the evaluation
            save()
        raise Interrupted(_farewell(state)) from None
    finally:
        progress.close()


def _farewell(state: TrainingState) -> str:
    command = "the same command" if state.options.resume else "the same command without --no-resume"
    return f"stopped at iteration {state.iteration} of {state.options.iterations}; {command} goes on from there"


def _batches(state: TrainingState, dataset: Dataset) -> Iterator[tuple[list, list]]:
    """This rank's, from where the training is."""
    options, world_size = state.options, distributed.world_size()
    return iter(
        training_loader(
            dataset,
            make_transforms(options.augment, state.model_options.keypoint_names or None),
            batch=options.batch,
            workers=options.workers,
            seed=options.seed,
            targets=state.model_options.targets,
            start=-(-state.samples // world_size),
            rank=distributed.rank(),
            world_size=world_size,
            max_ratio=state.model_options.max_size,
        )
    )
