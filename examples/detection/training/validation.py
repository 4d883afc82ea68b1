"""Evaluation during a training; the best model is kept."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from detection import distributed
from detection.evaluation.evaluate import evaluate
from detection.training import checkpoint
from detection.training.console import say
from detection.training.interrupts import Interrupts
from detection.training.log import Log
from detection.training.norms import train_mode
from detection.training.state import TrainingState


def validate(state: TrainingState, dataset: Dataset, folder: Path, log: Log | None, interrupts: Interrupts) -> None:
    """Evaluates the model as it is now; writes ``best.pt`` where its AP is the greatest so far. On every rank.

    Raises:
        Interrupted: at once where the user ends the run meanwhile. Several processes could not agree on that in the
            middle of it, and finish.
    """
    model, workers = state.result(), state.options.workers
    with interrupts.raising(distributed.world_size() == 1):
        report = evaluate(model, dataset, state.device, options=state.model_options, workers=workers)
    train_mode(state.model)
    state.validated = state.iteration
    ap = report.metrics[report.primary]["AP"]
    if log is not None:
        log.validation(state.iteration, report.metrics, report.primary)
    best = state.best is None or ap > state.best["AP"]
    if best:
        state.best = {"iteration": state.iteration, "metric": report.primary, "AP": ap}
        weights = state.weights()
        if distributed.rank() == 0:
            checkpoint.save(folder / "best.pt", weights)
    say(f"iteration {state.iteration}: {report.primary} AP {ap:.3f}{' (best so far)' if best else ''}")
