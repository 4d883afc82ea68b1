"""One process or several (torchrun): rank, device, collectives. With one process collectives do nothing."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist


def start(device: str) -> torch.device:
    """Joins the other processes where torchrun started this one, and picks this process's device.

    gloo on CPUs, NCCL on GPUs.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, but torch sees no GPU; allowed here are auto, cpu")
    if "LOCAL_RANK" not in os.environ:
        return torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl")
        return torch.device("cuda", torch.cuda.current_device())
    dist.init_process_group("gloo")
    return torch.device("cpu")


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


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


def broadcast(module: torch.nn.Module) -> None:
    """Copies rank 0's parameters and buffers to every rank."""
    if dist.is_initialized():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
