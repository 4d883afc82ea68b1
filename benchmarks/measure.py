"""Timing of several candidates side by side: interleaved repeats, medians, peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.process_memory import release_freed_memory

ENOUGH_SECONDS = 0.1


@dataclass
class Timing:
    """Times of one candidate in milliseconds, and the most memory that one call added, in MB (None: not known)."""

    name: str
    milliseconds: list[float] = field(default_factory=list)
    peak_megabytes: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)


def _time_once(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def peak_megabytes(call: Callable[[], object], device: torch.device) -> float | None:
    """The most memory that one call holds beyond what is held before it, its results included; None: not known."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    release_freed_memory()
    try:
        # Linux sets the high-water mark of the resident set back to the present size.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _status_megabytes("VmRSS")
    call()
    return max(0.0, _status_megabytes("VmHWM") - before)


def _status_megabytes(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/self/status has no line {key}")


def compare(
    candidates: dict[str, Callable[[], object]],
    device: torch.device,
    repeats: int,
    budget_seconds: float,
    own_threads: bool = False,
    interlude: Callable[[], None] | None = None,
) -> dict[str, Timing]:
    """Times every candidate ``repeats`` times, in turns so that all see the same state of the machine.

    Calls of a few milliseconds or less are repeated up to ten times as often, until one candidate has used a tenth of a
    second: whatever else the machine does would otherwise decide their median. A candidate stops being repeated once it
    has used ``budget_seconds``, but never before its second repeat: peers that are a hundred times slower would otherwise
    decide how long the comparison takes.

    With ``own_threads`` (some candidates have threads of their own, which go on spinning for a while after a call) each
    timed call comes behind an untimed one of the same candidate, so that nobody pays for another's threads. ``interlude``
    is called before the first turn and every fifth one behind it.
    """
    timings = {name: Timing(name) for name in candidates}
    for name, call in candidates.items():
        call()  # warm-up: allocations, autotuning, first-use compilation
        timings[name].peak_megabytes = peak_megabytes(call, device)
    spent = dict.fromkeys(candidates, 0.0)
    for repeat in range(10 * repeats):
        if repeat >= repeats and max(spent.values()) >= ENOUGH_SECONDS:
            break
        if interlude is not None and repeat % 5 == 0:
            interlude()
        for name, call in candidates.items():
            if repeat >= 2 and spent[name] > budget_seconds:
                continue
            if own_threads:
                call()
            milliseconds = _time_once(call, device)
            spent[name] += milliseconds / 1e3
            timings[name].milliseconds.append(milliseconds)
    return timings


class CopyBandwidth:
    """What the machine's memory gives: copies of a tensor larger than any cache, timed in between other measurements."""

    def __init__(self, device: torch.device, megabytes: int = 256) -> None:
        self._device = device
        self._source = torch.ones(megabytes * 2**18, device=device)
        self._target = torch.zeros_like(self._source)
        self._milliseconds: list[float] = []

    def start(self) -> None:
        """Forgets the copies made so far; what they say holds for their own time only."""
        self._milliseconds.clear()
        self._target.copy_(self._source)

    def sample(self) -> None:
        """Times three copies."""
        for _ in range(3):
            self._milliseconds.append(_time_once(lambda: self._target.copy_(self._source), self._device))

    @property
    def bytes_per_second(self) -> float:
        """Read and written together, in the median of the copies since ``start``."""
        return 2 * self._source.nbytes / statistics.median(self._milliseconds) * 1e3


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest magnitude."""
    scale = expected.double().abs().max().clamp_min(1e-30)
    return float((actual.double() - expected.double()).abs().max() / scale)


def check_agreement(case: str, name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Raises where a candidate's result is not ours: a time means nothing then."""
    if actual.shape != expected.shape:
        raise AssertionError(f"{case}: {name} gives shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    error = relative_error(actual, expected)
    if not error <= tolerance:
        raise AssertionError(f"{case}: {name} differs by {error:.2e} of the largest value; allowed {tolerance:.0e}")
