"""What a step in the worker gets: the device, where its records go, and how much of its time is left."""

import time
from collections.abc import Callable, Hashable

import torch

import resnet_cuda
from benchmarks.environment import read_clocks
from benchmarks.measure import Effort
from benchmarks.records import Results
from resnet_cuda import _extension

SPARE = 0.92  # of a step's seconds; past it nothing new is begun, so that few steps are cut in the middle


def first_line(error: BaseException) -> str:
    """An error for a result line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


class Context:
    """One step of a run on ``device``; ``phase`` stands in its records. What is wrong goes to ``failures``."""

    def __init__(self, device: torch.device, quick: bool, results: Results, step: str, phase: str, seconds: float):
        self.device, self.quick, self.results = device, quick, results
        self.step, self.phase, self.seconds = step, phase, seconds
        self.effort = Effort(calls=2, rounds=1, block_seconds=0.02) if quick else Effort()
        self.failures: list[str] = []
        self._kept: dict[Hashable, object] = {}
        self._until = time.monotonic() + SPARE * seconds
        self._begun: float | None = None
        self._longest = 0.0

    def write(self, kind: str, **record: object) -> None:
        self.results.write(phase=self.phase, kind=kind, **record)

    def write_clocks(self) -> None:
        self.write("clocks", **read_clocks(self.device))

    def not_measured(self, item: str, reason: str) -> None:
        self.write("not measured", item=item, reason=reason)

    def once(self, key: Hashable, make: Callable[[], object]):
        """What ``make`` gives, made once in this step."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def enough_time(self, item: str, seconds: float = 0.0) -> bool:
        """Whether ``seconds`` are left, and as much as the longest item so far took; a record says so where not."""
        now = time.monotonic()
        self._longest = max(self._longest, now - (self._begun or now))
        self._begun = None
        if self._until - now > max(seconds, self._longest):
            self._begun = now
            return True
        self.not_measured(item, "no time left in this step")
        return False

    def check(self) -> None:
        """Raises where some result was wrong: at a step's end, after everything else has been measured."""
        if self.failures:
            raise AssertionError(f"{len(self.failures)} failed, first: {self.failures[0]}")

    def needs_native(self) -> None:
        """Raises where the reference would be measured in place of our kernels."""
        on_cuda = self.device.type == "cuda"
        loaded = _extension.CUDA_LOADED if on_cuda else _extension.CPU_LOADED
        if not (loaded and resnet_cuda.backend() == "native") and (on_cuda or not self.quick):
            reason = _extension.CUDA_ERROR if on_cuda else _extension.CPU_ERROR
            raise RuntimeError(f"resnet_cuda's {self.device.type} kernels are not loaded: {reason}")
