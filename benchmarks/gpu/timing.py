"""Times of candidates side by side: blocks of calls, in the order A-B-A, over rotated and over cached arguments.

GPU time is what two events around a block of calls measure. A kernel that only waits goes ahead of the first event, as
long as the host needs to hand over the block: the GPU then never waits for the host, however small the kernels are.
Wall time is the host's clock around a block that ends with a synchronisation; it holds what launching costs.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

CALLS, ROUNDS = 20, 7
L2_MULTIPLE = 3
CYCLES_PER_SECOND = 2e9  # more than any GPU's: the wait is then at least as long as asked for
LONGEST_WAIT = 0.05

Call = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How often to measure. A candidate whose block takes longer than ``block_seconds`` makes fewer calls per block."""

    calls: int = CALLS
    rounds: int = ROUNDS
    block_seconds: float = 0.03


QUICK = Effort(calls=2, rounds=1, block_seconds=0.02)


@dataclass
class Candidate:
    """``calls``: the same call on several sets of arguments. ``setting`` makes a context that holds during its blocks."""

    name: str
    calls: Sequence[Call]
    setting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


@dataclass
class Times:
    """Microseconds per call, one number per block; ``gpu`` is empty where there is no GPU."""

    gpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    gpu_cached: list[float] = field(default_factory=list)
    calls: int = 0
    sets: int = 0

    def record(self) -> dict[str, object]:
        """Medians and ranges for a result line."""
        record: dict[str, object] = {"calls": self.calls, "rounds": len(self.wall), "sets": self.sets}
        for name, values in (("gpu_us", self.gpu), ("wall_us", self.wall), ("gpu_l2_warm_us", self.gpu_cached)):
            if values:
                record[name] = round(statistics.median(values), 3)
        for name, values in (("gpu_us_range", self.gpu), ("wall_us_range", self.wall)):
            if values:
                record[name] = [round(min(values), 3), round(max(values), 3)]
        return record


def sets_needed(set_bytes: int, device: torch.device, most: int = 40) -> int:
    """How many sets of arguments it takes until a call finds nothing of its own in L2."""
    if device.type != "cuda":
        return 2
    wanted = L2_MULTIPLE * getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 60_000_000)
    return max(2, min(most, -(-wanted // max(1, set_bytes))))


def _wall_block(calls: Sequence[Call], count: int, device: torch.device) -> tuple[float, float]:
    """Seconds per call until all is done, and until all is handed over."""
    synchronize(device)
    begin = time.perf_counter()
    for index in range(count):
        calls[index % len(calls)]()
    handed_over = time.perf_counter() - begin
    synchronize(device)
    return (time.perf_counter() - begin) / count, handed_over / count


def _gpu_block(calls: Sequence[Call], count: int, wait_seconds: float) -> float:
    """Microseconds per call between two events."""
    start, finish = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(int(wait_seconds * CYCLES_PER_SECOND))
    start.record()
    for index in range(count):
        calls[index % len(calls)]()
    finish.record()
    finish.synchronize()
    return start.elapsed_time(finish) * 1e3 / count


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare_in_turns(
    candidates: Sequence[Candidate], device: torch.device, effort: Effort, cached: bool = False
) -> dict[str, Times]:
    """Every round times A, then each other candidate, then A again; A is the first candidate and has two blocks a round.

    ``cached`` measures the first set of arguments alone, too: what L2 can hold is in L2 then.
    """
    times = {candidate.name: Times(sets=len(candidate.calls)) for candidate in candidates}
    waits: dict[str, float] = {}
    for candidate in candidates:
        with candidate.setting():
            for call in candidate.calls:  # warm-up: allocations, choice of algorithms, first-use compilation
                call()
            per_call, handed_over = _wall_block(candidate.calls, 2, device)
        count = int(effort.block_seconds / max(per_call, 1e-9))
        times[candidate.name].calls = max(1, min(effort.calls, count))
        waits[candidate.name] = min(LONGEST_WAIT, 1.5 * handed_over * times[candidate.name].calls + 2e-5)
    order = [*candidates, candidates[0]] if len(candidates) > 1 else list(candidates)
    for _ in range(effort.rounds):
        for candidate in order:
            own = times[candidate.name]
            with candidate.setting():
                own.wall.append(_wall_block(candidate.calls, own.calls, device)[0] * 1e6)
                if device.type == "cuda":
                    own.gpu.append(_gpu_block(candidate.calls, own.calls, waits[candidate.name]))
                    if cached:
                        own.gpu_cached.append(_gpu_block(candidate.calls[:1], own.calls, waits[candidate.name]))
    return times


def microseconds(call: Call, device: torch.device, effort: Effort) -> dict[str, object]:
    """The result line of one call by itself."""
    return compare_in_turns([Candidate("it", [call])], device, effort)["it"].record()
