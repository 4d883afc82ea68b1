"""One measured comparison, and the settings of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

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


@dataclass
class Row:
    """All candidates of one case. ``floor`` names the one to compare with: the matrix product alone, or a copy."""

    part: str
    case: str
    timings: dict[str, Timing]
    floor: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    traffic: Traffic | None = None

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
