"""Timing of several candidates side by side, by turns (``compare``) or by blocks of calls (``compare_blocks``)."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.process_memory import peak_megabytes

ENOUGH_SECONDS = 0.1
CYCLES_PER_SECOND = 2e9  # more than any GPU's clock rate, so that a wait is at least as long as asked for
LONGEST_WAIT = 0.05

Call = Callable[[], object]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def host_seconds(calls: Sequence[Call], count: int, device: torch.device) -> tuple[float, float]:
    """Seconds per call, by the host's clock, until all is done and until all is launched; ``calls`` take turns."""
    synchronize(device)
    begin = time.perf_counter()
    for index in range(count):
        calls[index % len(calls)]()
    launched = time.perf_counter() - begin
    synchronize(device)
    return (time.perf_counter() - begin) / count, launched / count


def gpu_seconds(calls: Sequence[Call], count: int, wait: float = 0.0) -> float:
    """Seconds per call between two CUDA events around ``count`` calls.

    They follow a kernel that only waits, for ``wait`` seconds. Meanwhile the host launches the calls, so that the GPU
    does not wait for the host between small kernels.
    """
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    if wait:
        torch.cuda._sleep(int(wait * CYCLES_PER_SECOND))
    start.record()
    for index in range(count):
        calls[index % len(calls)]()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / count


@dataclass
class Timing:
    """Times of one candidate in milliseconds, and further measurements of a call.

    ``peak_megabytes``: the peak of the memory that it added; ``stored_megabytes``: the memory that a forward stores for
    its backward; ``compile_seconds``: the time of its first call, in which it was compiled.
    """

    name: str
    milliseconds: list[float] = field(default_factory=list)
    peak_megabytes: float | None = None
    stored_megabytes: float | None = None
    compile_seconds: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)


def _milliseconds(call: Call, device: torch.device) -> float:
    return 1e3 * (gpu_seconds([call], 1) if device.type == "cuda" else host_seconds([call], 1, device)[0])


def compare(
    candidates: dict[str, Call],
    device: torch.device,
    repeats: int,
    budget_seconds: float,
    own_threads: bool = False,
    interlude: Callable[[], None] | None = None,
    rotate: bool = False,
) -> dict[str, Timing]:
    """Times one call of every candidate per turn, so that all see the same state of the machine.

    There are ``repeats`` turns. Short calls get up to ten times as many, until one candidate has used
    ``ENOUGH_SECONDS``, since the median of a few samples is noisy. A candidate that has used ``budget_seconds`` drops
    out, after its second turn at the earliest, so that a very slow peer does not prolong the comparison.

    ``own_threads``: some candidates have thread pools that spin for a while after a call and take cores from the next
    candidate; each timed call then follows an untimed one of the same candidate. ``interlude`` is called before the
    first turn and before every fifth one after it. ``rotate``: each turn begins with the next candidate, so that no
    candidate always follows the same one.
    """
    timings = {name: Timing(name) for name in candidates}
    for name, call in candidates.items():
        call()  # warm-up: allocations, autotuning, first-use compilation
        timings[name].peak_megabytes = peak_megabytes(call, device)
    spent = dict.fromkeys(candidates, 0.0)
    order = list(candidates.items())
    for repeat in range(10 * repeats):
        if repeat >= repeats and max(spent.values()) >= ENOUGH_SECONDS:
            break
        if interlude is not None and repeat % 5 == 0:
            interlude()
        first = repeat % len(order) if rotate else 0
        for name, call in order[first:] + order[:first]:
            if repeat >= 2 and spent[name] > budget_seconds:
                continue
            if own_threads:
                call()
            milliseconds = _milliseconds(call, device)
            spent[name] += milliseconds / 1e3
            timings[name].milliseconds.append(milliseconds)
    return timings


@dataclass(frozen=True)
class Effort:
    """``rounds`` of blocks of ``calls`` calls, fewer where these would take longer than ``block_seconds``."""

    calls: int = 20
    rounds: int = 7
    block_seconds: float = 0.03


@dataclass
class Candidate:
    """``calls``: one call on several sets of arguments; ``setting`` makes a context that holds during its blocks."""

    name: str
    calls: Sequence[Call]
    setting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


def compare_blocks(
    candidates: Sequence[Candidate], device: torch.device, effort: Effort, l2_warm: bool = False
) -> dict[str, dict[str, object]]:
    """Times blocks of calls. A round is A, B, ..., A: the first candidate has two blocks per round.

    Returns by candidate medians and ranges in microseconds per call: ``gpu_us`` between CUDA events, ``wall_us`` by the
    host's clock up to a synchronisation. ``l2_warm`` also times the first set of arguments alone, which may stay in L2.
    """
    counts, waits, samples = {}, {}, {}
    for one in candidates:
        with one.setting():
            for call in one.calls:  # warm-up: allocations, choice of algorithms, first-use compilation
                call()
            seconds, launching = host_seconds(one.calls, 2, device)
        counts[one.name] = max(1, min(effort.calls, int(effort.block_seconds / max(seconds, 1e-9))))
        waits[one.name] = min(LONGEST_WAIT, 1.5 * launching * counts[one.name] + 2e-5)
        samples[one.name] = {"gpu_us": [], "wall_us": [], "gpu_l2_warm_us": []}
    for one in [*candidates, *(candidates[:1] if len(candidates) > 1 else [])] * effort.rounds:
        count, own = counts[one.name], samples[one.name]
        with one.setting():
            own["wall_us"].append(1e6 * host_seconds(one.calls, count, device)[0])
            if device.type == "cuda":
                own["gpu_us"].append(1e6 * gpu_seconds(one.calls, count, waits[one.name]))
                if l2_warm:
                    own["gpu_l2_warm_us"].append(1e6 * gpu_seconds(one.calls[:1], count, waits[one.name]))
    lines = {}
    for one in candidates:
        own = {key: values for key, values in samples[one.name].items() if values}
        lines[one.name] = {"calls": counts[one.name], "rounds": len(own["wall_us"]), "sets": len(one.calls)}
        lines[one.name] |= {key: round(statistics.median(values), 3) for key, values in own.items()}
        for key in ("gpu_us", "wall_us"):
            if key in own:
                lines[one.name][f"{key}_range"] = [round(min(own[key]), 3), round(max(own[key]), 3)]
    return lines


def graphed(call: Call) -> Call:
    """Replays ``call`` as a CUDA graph, and keeps it: the graph reads its arguments and parameters where they lay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return lambda kept=call: graph.replay()


def sets_needed(set_bytes: int, device: torch.device, most: int = 40) -> int:
    """How many sets of arguments hold three times what L2 does: a call then finds nothing of its own in it."""
    if device.type != "cuda":
        return 2
    wanted = 3 * getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 60_000_000)
    return max(2, min(most, -(-wanted // max(1, set_bytes))))


class CopyBandwidth:
    """The memory's bandwidth: copies of a tensor larger than any cache, timed in between other measurements."""

    def __init__(self, device: torch.device, megabytes: int = 256) -> None:
        self._device = device
        self._source = torch.ones(megabytes * 2**18, device=device)
        self._target = torch.zeros_like(self._source)
        self._milliseconds: list[float] = []

    def start(self) -> None:
        """Forgets the copies made so far: a shared machine's bandwidth changes with time."""
        self._milliseconds.clear()
        self._target.copy_(self._source)

    def sample(self) -> None:
        """Times three copies."""
        for _ in range(3):
            self._milliseconds.append(_milliseconds(lambda: self._target.copy_(self._source), self._device))

    @property
    def bytes_per_second(self) -> float:
        """Read and written together, in the median of the copies since ``start``."""
        return 2 * self._source.nbytes / statistics.median(self._milliseconds) * 1e3


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 matrix products and convolutions may round their operands to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest magnitude; infinite where the shapes differ or a difference is NaN."""
    if actual.shape != expected.shape:
        return float("inf")
    scale = expected.double().abs().max().clamp_min(1e-30)
    error = float((actual.double() - expected.double()).abs().max() / scale)
    return float("inf") if math.isnan(error) else error  # NaN would get lost in a maximum of errors


def check_agreement(case: str, name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Raises where a candidate's result is not ours: a time means nothing then."""
    if actual.shape != expected.shape:
        raise AssertionError(f"{case}: {name} gives shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    error = relative_error(actual, expected)
    if not error <= tolerance:
        raise AssertionError(f"{case}: {name} differs by {error:.2e} of the largest value; allowed {tolerance:.0e}")
