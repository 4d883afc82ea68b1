"""The training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from detection import distributed
from detection.data.custom import check_dataset
from detection.models.options import ModelOptions
from detection.training import checkpoint
from detection.training.batches import batches
from detection.training.console import Progress, say
from detection.training.curves import draw_curves
from detection.training.folder import locked, put_aside, write_options
from detection.training.interrupts import Interrupted, Interrupts
from detection.training.log import LINES, Log
from detection.training.norms import train_mode
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
    notes: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Trains, or goes on from ``folder/checkpoint.pt`` where there is one and ``options.resume``.

    A resumed run sees the same samples under the same augmentation as one that was never interrupted; with one thread
    on a CPU its weights have the same bits. Writes to ``folder``: ``checkpoint.pt``, ``best.pt`` (of the greatest AP on
    ``validation``), ``options.yaml``, ``log.jsonl``, ``log.csv`` and ``curves.png``. A run that begins anew first moves
    an earlier one's files to ``folder/before-1``, ``before-2``, ...

    Args:
        dataset: of CocoInstances or a class of the user's own.
        validation: evaluated every ``options.evaluate_every`` iterations and at the end, where that is not 0.
        weights: what to start from, as :func:`load_pretrained` takes it; not used in a run that is resumed.
        weights_eps: its ``eps``.
        notes: what else belongs into ``options.yaml``, under ``data``, such as where the data is; None is left out.

    Returns:
        The model in eval mode, with the averaged weights where ``options.ema``; on every rank whole.

    Raises:
        TypeError: for a data set that lacks a method, see :func:`check_dataset`.
        ValueError: for a checkpoint of another training, a folder that another training uses, or a loss that is NaN or
            infinite.
        DamagedSampleError: for a sample that cannot be used; a ValueError, too.
        SaveError: where a checkpoint cannot be written.
        Interrupted: after Ctrl-C or SIGTERM; all is saved.
    """
    for it in (dataset, validation):
        if it is not None:
            check_dataset(it)
    model_options = model_options.resolved(weights is not None)
    announce = distributed.rank() == 0
    with distributed.failing_together(), locked(folder), Interrupts(announce) as interrupts:
        path = folder / "checkpoint.pt"
        state, wrapped, resumed = begin(dataset, model_options, options, path, device, weights, weights_eps)
        try:
            with _log(state, resumed, folder, weights, weights_eps, notes) as log:
                _run(state, wrapped, dataset, validation if options.evaluate_every else None, folder, log, interrupts)
        except Interrupted:
            _draw(folder)
            raise
        _draw(folder)
        return state.result()


def _draw(folder: Path) -> None:
    if distributed.rank() == 0:
        draw_curves(folder / LINES, folder / "curves.png")


@contextmanager
def _log(
    state: TrainingState,
    resumed: bool,
    folder: Path,
    weights: Any,
    weights_eps: float | None,
    notes: Mapping[str, Any] | None,
) -> Iterator[Log | None]:
    """The log, on rank 0; and what else belongs to the beginning of a run in ``folder``."""
    if distributed.rank() != 0:
        yield None
        return
    # Not before now, when nothing the user gave can be wrong any more.
    if not resumed and (before := put_aside(folder)) is not None:
        say(f"the files of an earlier run in {folder} are now in {before}")
    write_options(folder, state, weights, weights_eps, dict(notes or {}))
    log = Log(folder, state.iteration, state.options.log_every)
    try:
        yield log
    finally:
        log.close()


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

    train_mode(state.model)
    stopping = False
    source = batches(state, dataset) if state.iteration < last else iter(())
    progress = Progress(state.iteration, options.iterations, options.log_every, last)
    try:
        if validation is not None and state.iteration:
            check()  # where the run before was interrupted in it
        if state.iteration >= last:
            save()
        while state.iteration < last:
            record, stopping = step(state, wrapped, source, lambda: interrupts.requested)
            if log is not None:
                log.training(record)
            progress.update(record)
            if validation is not None and not stopping:
                check()
            if state.iteration % options.save_every == 0 or state.iteration == last or stopping:
                save()
            if stopping and state.iteration < options.iterations:
                raise Interrupted
        if state.iteration < options.iterations:
            say(_farewell(state, " (--stop-after)"))
    except Interrupted:
        if not stopping:  # in the evaluation
            save()
        raise Interrupted(_farewell(state)) from None
    finally:
        progress.close()


def _farewell(state: TrainingState, why: str = "") -> str:
    command = "the same command" if state.options.resume else "the same command without --no-resume"
    return f"stopped at iteration {state.iteration} of {state.options.iterations}{why}; {command} goes on from there"
