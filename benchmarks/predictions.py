"""Compares ``predictions.json`` with measurements: ``results/gpu-predictions.md``. Nothing here needs torch.

``predictions.json`` gives the derivation of each prediction, ``results/gpu-reasons.json`` the reason for each that
missed by more than 30 %.
"""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

from benchmarks.records import microseconds, select

PREDICTED = json.loads(Path(__file__).with_name("predictions.json").read_text(encoding="utf-8"))
REASONS = Path(__file__).resolve().parent / "results" / "gpu-reasons.json"
LARGEST_MISS = 0.30
NOT_YET = "–"  # noqa: RUF001 - a dash, and no minus: a cell's value that no run has measured
NO_REASON = "REASON TO BE WRITTEN"
WIDTH = 120


def predicted_us(direction: str, layer: str, candidate: str) -> float | None:
    """The predicted time of a candidate at a layer such as "C4, batch 8"; None where none was made."""
    times = PREDICTED["times_us"].get(PREDICTED["precision"].get(candidate), {})
    return times.get(direction, {}).get(layer)


def floor_us(direction: str, batch: int, candidate: str) -> float | None:
    """The matrix products alone, at the GPU's rate for the candidate's precision; None for a peer."""
    rate = PREDICTED["teraflops"].get(PREDICTED["precision"].get(candidate))
    products = 2 if direction == "backward" else 1
    return rate and round(products * batch * PREDICTED["gflop_per_image"] / rate * 1e3, 2)


FLOOR_KEYS = ("direction", "batch", "candidate")
QUANTITIES = {  # quantity: (kind of record, its value)
    "microseconds": ("time", microseconds),
    "ratio": ("time", microseconds),
    "percent of floor": (
        "time",
        lambda record: 100 * floor_us(*(record[key] for key in FLOOR_KEYS)) / microseconds(record),
    ),
    "percent of copy": ("time", lambda record: 100 * record["share_of_copy"]),
    "ms per image": ("time", lambda record: record["ms_per_image"]),
    "accuracy ratio": (
        "accuracy",
        lambda record: record["ours"] / record["torchvision"] if record["torchvision"] else None,
    ),
    "megabytes": ("memory", lambda record: record.get("extra_megabytes", record.get("kept_megabytes_per_image"))),
}


def rows() -> Iterator[tuple[dict, dict]]:
    """Every prediction with its group."""
    return ((group, row) for group in PREDICTED["groups"] for row in group["rows"])


def measured(group: dict, row: dict, records: list[dict]) -> float | None:
    """The last value on record; a ratio's two times are of one process (``run``)."""
    kind, value = QUANTITIES[group["quantity"]]
    for phase in group["phases"]:
        for own in reversed(select(records, kind=kind, phase=phase, **row["of"])):
            if "over" not in row:
                return value(own)
            others = select(records, kind=kind, phase=phase, run=own.get("run"), **row["over"])
            if others:
                return value(others[-1]) / value(own)
    return None


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return NOT_YET
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read_reasons() -> dict[str, str]:
    """By the key of a prediction's row, why it missed. The file gives a reason, in lines, once for several rows."""
    if not REASONS.exists():
        return {}
    return {
        key: " ".join(entry["reason"])
        for entry in json.loads(REASONS.read_text(encoding="utf-8"))
        for key in entry["rows"]
    }


def verdict(row: dict, value: float | None, reasons: dict[str, str], notes: list[str]) -> str:
    """How far off; a miss of more than 30 % either way needs its reason, which becomes a note."""
    if value is None:
        return ""
    miss = value / row["predicted"] - 1
    if abs(miss) <= LARGEST_MISS:
        return f"{miss:+.0%}"
    if row["key"] not in reasons:
        return f"{miss:+.0%}, **miss**: {NO_REASON}"
    if reasons[row["key"]] not in notes:
        notes.append(reasons[row["key"]])
    return f"{miss:+.0%}, **miss**, note {1 + notes.index(reasons[row['key']])}"


def fill(text: str, **indents: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, **indents)


def predictions_tables(records: list[dict], reasons: dict[str, str]) -> str:
    """A table per group, and the notes after them."""
    notes: list[str] = []
    parts = []
    for group in PREDICTED["groups"]:
        lines = ["| case | predicted | aim: at least / at best | measured | deviation |", "|---|---|---|---|---|"]
        for row in group["rows"]:
            value = measured(group, row, records)
            cells = [row["item"], number(row["predicted"]), row.get("aim", ""), number(value)]
            lines.append(f"| {' | '.join([*cells, verdict(row, value, reasons, notes)])} |")
        parts += [f"## {group['title']}", fill(" ".join(group["derivation"])), "\n".join(lines)]
    numbered = (fill(text, initial_indent=f"{n}. ", subsequent_indent="   ") for n, text in enumerate(notes, 1))
    return "\n\n".join([*parts, *(["## Notes", "\n".join(numbered)] if notes else [])])


def page(records: list[dict], caption: str, files: str) -> str:
    """The whole file, made from the records of a GPU's ``files``."""
    return f"""# Predictions and measurements

Made by `python -m benchmarks.tables {files} --table predictions`;
not to be edited. Reasons for misses of more than 30 % go to `gpu-reasons.json` beside this file, by the row's key
(`benchmarks/predictions.json`).

{fill(" ".join(PREDICTED["source"]))}

Predicted for an {PREDICTED["gpu"]}. {NOT_YET}: not yet measured.

{fill(caption)}

{predictions_tables(records, read_reasons())}
"""
