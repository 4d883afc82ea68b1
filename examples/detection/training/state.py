"""All that a checkpoint keeps of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule

from detection import distributed
from detection.models.build import build_model
from detection.models.options import ModelOptions
from detection.training.ema import WeightAverage
from detection.training.options import TrainOptions

# Whole tensors by the parameters' names, so that a checkpoint of any number of processes resumes in any other.
WHOLE = StateDictOptions(full_state_dict=True)


@dataclass
class TrainingState:
    """The parts of a training that change.

    Attributes:
        data: the data set's :func:`detection.training.fingerprint.fingerprint`.
        iteration: how many are done.
        samples: how many images are used up, of all ranks together.
        best: ``iteration``, ``metric`` and ``AP`` of the best validation; None before the first one.
        validated: the iteration of the last validation, 0 before.
    """

    model_options: ModelOptions
    options: TrainOptions
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    device: torch.device
    data: dict[str, Any] | None = None
    iteration: int = 0
    samples: int = 0
    best: dict[str, Any] | None = None
    validated: int = 0
    _copy: nn.Module | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a checkpoint. Under FSDP every rank must call it."""
        state = self.weights()
        # Before its first step an optimizer has no state, and torch's function would make one by a step without
        # gradients, which counts.
        optimizer = get_optimizer_state_dict(self.model, self.optimizer, options=WHOLE) if self.optimizer.state else {}
        return {
            **state,
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            "samples": self.samples,
            "validated": self.validated,
            "train_options": self.options.as_dict(),
            "data": self.data,
            "world_size": distributed.world_size(),
        }

    def weights(self) -> dict[str, Any]:
        """For a checkpoint that is not resumed. Under FSDP every rank must call it.

        ``ema`` is a whole state dict, of which all that has no average is the model's.
        """
        model = get_model_state_dict(self.model, options=WHOLE)
        return {
            "model": model,
            "ema": None if self.average is None else {**model, **self.average.state_dict()},
            "options": self.model_options.as_dict(),
            "iteration": self.iteration,
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Of :meth:`as_dict`, whose model and options fit."""
        if state["optimizer"]:
            set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"], options=WHOLE)
        # After the optimizer, for which torch's function takes a step.
        set_model_state_dict(self.model, state["model"], options=WHOLE)
        if self.average is not None:
            self.average.load_state_dict(state["ema"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.iteration, self.samples = state["iteration"], state["samples"]
        self.best, self.validated = state["best"], state["validated"]

    def result(self) -> nn.Module:
        """The model to evaluate, in eval mode: with the averaged weights where there are some, whole on every rank.

        It is the trained model itself where that is what to evaluate, else a copy.
        """
        if self.average is None and not isinstance(self.model, FSDPModule):
            return self.model.eval()
        if self._copy is None:
            self._copy = build_model(self.model_options).to(self.device)
        weights = self.weights()
        self._copy.load_state_dict(weights["ema"] or weights["model"])
        return self._copy.eval()
