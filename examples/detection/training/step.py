"""One step of the optimizer: forward, backward, clipping, update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from detection import distributed
from detection.training.memory import memory_mb
from detection.training.parallel import backward
from detection.training.precision import autocast
from detection.training.schedule import learning_rate
from detection.training.state import TrainingState

# What a detector's loss reads of a target, and what has one entry for each object.
USED = ("boxes", "labels", "masks", "keypoints")


def step(
    state: TrainingState,
    wrapped: nn.Module,
    batches: Iterator[tuple[list[Tensor], list[dict]]],
    stop: Callable[[], bool],
) -> tuple[dict[str, float | int | None], bool]:
    """Does iteration ``state.iteration``, and counts it.

    Returns:
        The record of the log: losses are means over the accumulated batches of all ranks; ``gradient_norm`` is that
        before clipping, None where it is not finite. And whether any rank wants to ``stop``, asked at the end.

    Raises:
        ValueError: for a loss that is NaN or infinite.
    """
    options, started = state.options, time.perf_counter()
    rate = learning_rate(options, state.iteration)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number in range(options.accumulate):
        images, targets = next(batches)
        _seed(state, number)
        with backward(wrapped, synchronise=number == options.accumulate - 1):
            losses = _losses(state, wrapped, images, targets)
            loss = sum(losses.values())
            _check_finite(state.iteration, loss, losses)
            state.scaler.scale(loss / options.accumulate).backward()
        for name, part in losses.items():
            sums[name] = sums.get(name, 0) + part.detach().float()
    norm = _update(state)
    images = options.batch * options.accumulate * distributed.world_size()
    state.iteration += 1
    state.samples += images
    if state.average is not None:
        state.average.update(state.iteration - 1)
    means, stopping = _over_ranks(sums, options.accumulate, stop())
    seconds = time.perf_counter() - started
    return {
        "iteration": state.iteration,
        "total": sum(means.values()),
        **means,
        "learning_rate": rate,
        "gradient_norm": norm if math.isfinite(norm) else None,
        "images_per_second": images / seconds,
        "seconds": seconds,
        "memory_mb": memory_mb(state.device),
    }, stopping


def _seed(state: TrainingState, number: int) -> None:
    """A detector samples anchors and proposals at random: seeded by the batch's place in the whole training.

    So a resumed run repeats them, and accumulating two batches does what two processes do with one each.
    """
    world_size = distributed.world_size()
    batch = (state.iteration * state.options.accumulate + number) * world_size + distributed.rank()
    torch.manual_seed((state.options.seed << 31) + batch)


def _losses(state: TrainingState, wrapped: nn.Module, images: list[Tensor], targets: list[dict]) -> dict[str, Tensor]:
    images = [image.to(state.device, non_blocking=True) for image in images]
    targets = [_for_loss(target, state.device) for target in targets]
    with autocast(state.options.precision, state.device):
        return wrapped(images, targets)


def _for_loss(target: dict[str, Any], device: torch.device) -> dict[str, Tensor]:
    """Without crowd regions, which count in the evaluation only; a custom data set may have no ``iscrowd``."""
    used = {name: target[name] for name in USED if name in target}
    if "iscrowd" in target:
        single = target["iscrowd"] == 0
        used = {name: value[single] for name, value in used.items()}
    return {name: value.to(device, non_blocking=True) for name, value in used.items()}


def _check_finite(iteration: int, loss: Tensor, losses: dict[str, Tensor]) -> None:
    value = float(loss.detach())
    if not math.isfinite(value):
        parts = ", ".join(f"{name} {float(part.detach()):.4g}" for name, part in losses.items())
        raise ValueError(f"the loss of iteration {iteration} is {value} ({parts}); a lower --learning-rate may help")


def _update(state: TrainingState) -> float:
    """Clips and steps; gives the norm of all gradients. With float16 infinite gradients lower the scale instead."""
    state.scaler.unscale_(state.optimizer)
    parameters = [it for group in state.optimizer.param_groups for it in group["params"] if it.grad is not None]
    norm = nn.utils.get_total_norm([it.grad for it in parameters])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if state.options.clip_norm:
        nn.utils.clip_grads_with_norm_(parameters, state.options.clip_norm, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return float(norm)


def _over_ranks(sums: dict[str, Tensor], accumulate: int, stop: bool) -> tuple[dict[str, float], bool]:
    """Means over accumulated batches and ranks, and whether any rank wants to stop; one collective for both."""
    values = torch.stack([*sums.values()])
    values = distributed.all_sum(torch.cat([values, values.new_tensor([float(stop)])])).tolist()
    count = accumulate * distributed.world_size()
    return {name: value / count for name, value in zip(sums, values, strict=False)}, values[-1] > 0
