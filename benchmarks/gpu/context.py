"""What a phase gets: the device, where its records go, and how much of its time is left."""

from __future__ import annotations

import time

import torch

import resnet_cuda
from benchmarks.gpu.records import Results
from resnet_cuda import _extension

SPARE = 0.92  # of a phase's seconds; past it nothing new is begun, so that few phases are cut in the middle


def first_line(error: BaseException) -> str:
    """An error for a result line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


class Context:
    """One phase of a run on ``device``. Nothing is begun any more once ``time_left`` is 0; what is left out is recorded."""

    def __init__(self, device: torch.device, quick: bool, results: Results, phase: str, seconds: float):
        self.device, self.quick, self.results, self.phase = device, quick, results, phase
        self.seconds = seconds
        self.failures: list[str] = []
        self._until = time.monotonic() + SPARE * seconds
        self._begun: float | None = None
        self._longest = 0.0

    def time_left(self) -> float:
        return max(0.0, self._until - time.monotonic())

    def write(self, kind: str, **record: object) -> None:
        self.results.write(phase=self.phase, kind=kind, **record)

    def not_measured(self, item: str, reason: str, **record: object) -> None:
        self.write("not measured", item=item, reason=reason, **record)

    def enough_time(self, item: str, seconds: float = 0.0) -> bool:
        """Whether ``seconds`` are left, and as much as the longest item so far took; a record says so where not."""
        now = time.monotonic()
        if self._begun is not None:
            self._longest = max(self._longest, now - self._begun)
        self._begun = None
        if self.time_left() > max(seconds, self._longest):
            self._begun = now
            return True
        self.not_measured(item, "no time left in this phase")
        return False

    def check(self) -> None:
        """At a phase's end: raises where some result was wrong, after everything else has been measured."""
        if self.failures:
            raise AssertionError(f"{len(self.failures)} failed, first: {self.failures[0]}")

    @property
    def native(self) -> bool:
        """Whether our kernels, and not the reference, run on this device."""
        loaded = _extension.CUDA_LOADED if self.device.type == "cuda" else _extension.CPU_LOADED
        return loaded and resnet_cuda.backend() == "native"

    def needs_native(self) -> None:
        """Raises where the reference would be measured in place of our kernels."""
        if not self.native and not (self.quick and self.device.type == "cpu"):
            reason = _extension.CUDA_ERROR if self.device.type == "cuda" else _extension.CPU_ERROR
            raise RuntimeError(f"resnet_cuda's {self.device.type} kernels are not loaded: {reason}")
