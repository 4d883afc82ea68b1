"""One measured comparison, of times or of stored bytes, and the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from benchmarks.activation_memory import Stored
from benchmarks.measure import Timing

OURS = "resnet_cuda"


@dataclass(frozen=True)
class Settings:
    """What the user asked for on the command line."""

    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    repeats: int
    budget_seconds: float
    quick: bool


@dataclass(frozen=True)
class Traffic:
    """Bytes that one call has to read and write, and the bytes per second of large copies between its turns."""

    moved: int
    copy_bandwidth: float

    def gigabytes_per_second(self, milliseconds: float) -> float:
        return self.moved / milliseconds / 1e6

    def share(self, milliseconds: float) -> float:
        """Part of the machine's copy bandwidth; above 1 where the caches hold the data."""
        return self.moved / milliseconds * 1e3 / self.copy_bandwidth


class Comparison(Protocol):
    """What the table, the JSON file and the plots need of a case; ``quantity`` is what is compared with ours."""

    part: str
    case: str
    notes: dict[str, str]
    floor: str | None
    quantity: str

    @property
    def names(self) -> list[str]:
        """Of the candidates."""

    def cells(self, name: str) -> dict[str, str]:
        """Column titles and texts of a candidate's line."""

    def bar(self, name: str) -> tuple[float, str]:
        """How many times ours, and the text beside the bar."""

    def as_json(self) -> dict[str, object]: ...


@dataclass
class Row:
    """All candidates of one case. ``floor`` names the baseline: the matrix product alone, or a copy."""

    part: str
    case: str
    timings: dict[str, Timing]
    floor: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    traffic: Traffic | None = None
    quantity: str = "time"

    @property
    def names(self) -> list[str]:
        return list(self.timings)

    def cells(self, name: str) -> dict[str, str]:
        timing = self.timings[name]
        found = {"ms": f"{timing.median:.2f}", "x ours": f"{1 / self.ratio_to(name):.2f}"}
        if timing.peak_megabytes is not None:
            found["peak MB"] = f"{timing.peak_megabytes:.1f}"
        if timing.stored_megabytes is not None:
            found["stored MB"] = f"{timing.stored_megabytes:.1f}"
        if timing.compile_seconds is not None:
            found["compile s"] = f"{timing.compile_seconds:.1f}"
        if self.traffic is not None:
            found["GB/s"] = f"{self.traffic.gigabytes_per_second(timing.median):.1f}"
            found["of copy"] = f"{self.traffic.share(timing.median):.0%}"
        return found

    def bar(self, name: str) -> tuple[float, str]:
        return 1 / self.ratio_to(name), f"{self.timings[name].median:.1f} ms"

    def ratio_to(self, name: str) -> float:
        """How many times as long as ``name`` ours takes."""
        return self.timings[OURS].median / self.timings[name].median

    def as_json(self) -> dict[str, object]:
        return {
            "part": self.part,
            "case": self.case,
            "floor": self.floor,
            "notes": self.notes,
            **self._traffic_as_json(),
            "candidates": {
                name: {
                    "median_ms": round(timing.median, 4),
                    "min_ms": round(min(timing.milliseconds), 4),
                    "repeats": len(timing.milliseconds),
                    "peak_mb": None if timing.peak_megabytes is None else round(timing.peak_megabytes, 1),
                    **_known("stored_mb", timing.stored_megabytes),
                    **_known("compile_seconds", timing.compile_seconds),
                    "times_of_ours": round(1 / self.ratio_to(name), 3),
                }
                for name, timing in self.timings.items()
            },
        }

    def _traffic_as_json(self) -> dict[str, object]:
        if self.traffic is None:
            return {}
        median = self.timings[OURS].median
        return {
            "gb_per_s": round(self.traffic.gigabytes_per_second(median), 1),
            "share_of_copy_bandwidth": round(self.traffic.share(median), 3),
            "share_of_floor": round(1 / self.ratio_to(self.floor), 3),
        }


def _known(key: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {key: round(value, 1)}


@dataclass
class StoredRow:
    """What each candidate's forward stores for its backward, per image: of the whole network and of C3 to C5 alone."""

    part: str
    case: str
    whole: dict[str, Stored]
    stages: dict[str, Stored]
    floor: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    quantity: str = "activation memory"

    @property
    def names(self) -> list[str]:
        return list(self.whole)

    def cells(self, name: str) -> dict[str, str]:
        whole, stages = self.whole[name].activations, self.stages[name].activations
        return {
            "MB": f"{whole / 1e6:.1f}",
            "x ours": f"{whole / self.whole[OURS].activations:.2f}",
            "C3-C5 MB": f"{stages / 1e6:.1f}",
            "C3-C5 x ours": f"{stages / self.stages[OURS].activations:.2f}",
            "weights MB": f"{self.whole[name].constants / 1e6:.1f}",
        }

    def bar(self, name: str) -> tuple[float, str]:
        whole = self.whole[name].activations
        return whole / self.whole[OURS].activations, f"{whole / 1e6:.0f} MB"

    def as_json(self) -> dict[str, object]:
        return {
            "part": self.part,
            "case": self.case,
            "floor": self.floor,
            "notes": self.notes,
            "candidates": {
                name: {
                    "stored_mb": round(whole.activations / 1e6, 3),
                    "stored_mb_c3_to_c5": round(self.stages[name].activations / 1e6, 3),
                    "by_stage_mb": {stage: round(size / 1e6, 3) for stage, size in whole.by_stage.items()},
                    "constants_mb": round(whole.constants / 1e6, 3),
                    "times_of_ours": round(whole.activations / self.whole[OURS].activations, 3),
                    "times_of_ours_c3_to_c5": round(self.stages[name].activations / self.stages[OURS].activations, 3),
                }
                for name, whole in self.whole.items()
            },
        }
