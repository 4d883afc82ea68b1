"""One process or several (torchrun): rank, device, collectives. With one process collectives do nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from detection.training.watch import FailureWatch

# What a command line prints without a traceback: a mistake of the user's, or a file that fails. Others may come from a
# data set class of the user's, who needs their traceback.
MISTAKES = (ValueError, OSError)

_watch: FailureWatch | None = None


def start(device: str) -> torch.device:
    """Joins the other processes where torchrun started this one, and picks this process's device.

    gloo on CPUs, NCCL on GPUs. From now on this process ends where another one fails, see :func:`failing_together`.
    """
    global _watch
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch sees no GPU; allowed here are auto, cpu")
    if "LOCAL_RANK" not in os.environ:
        return torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl")
        chosen = torch.device("cuda", torch.cuda.current_device())
    else:
        dist.init_process_group("gloo")
        chosen = torch.device("cpu")
    _watch = FailureWatch(rank())
    return chosen


def stop() -> None:
    """Leaves the other processes; not after a failure, as that could wait for one that hangs in a collective."""
    global _watch
    failed = _watch is not None and _watch.failed
    if _watch is not None:
        _watch.stop()
    _watch = None
    if dist.is_initialized() and not failed:
        dist.destroy_process_group()


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Where an exception leaves this block on one rank, the others end within seconds, without a word.

    The first rank that fails raises its exception. One that is none of ``MISTAKES``, which a command line prints with
    the rank, is announced with the rank, too. With one process this does nothing.
    """
    try:
        yield
    except Exception as error:
        if _watch is not None and not _watch.failed:
            if not _watch.first_to_fail():
                _watch.end()
            if not isinstance(error, MISTAKES):
                print(f"rank {rank()}: {type(error).__name__}", file=sys.stderr, flush=True)
        raise


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def all_gather(value: Any) -> list[Any]:
    """Every rank's value, in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_sum(tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def broadcast(module: torch.nn.Module) -> None:
    """Copies rank 0's parameters and buffers to every rank."""
    if dist.is_initialized():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
