"""``results/gpu-predictions.md``: every prediction beside its measured value, and why it missed. Nothing here needs torch."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from benchmarks.gpu import expected, predictions
from benchmarks.gpu.expected import Row

LARGEST_MISS = 0.30
NONE_YET = "–"  # noqa: RUF001 - a dash, and no minus
NO_REASON = "REASON TO BE WRITTEN"
REASONS = Path(__file__).resolve().parents[1] / "results" / "gpu-reasons.json"
WIDTH = 120


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return NONE_YET
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read_reasons(path: Path = REASONS) -> dict[str, str]:
    """By the key of a prediction's row, why it missed. The file gives a reason, in lines, once for several rows."""
    if not path.exists():
        return {}
    return {key: " ".join(entry["reason"]) for entry in json.loads(path.read_text()) for key in entry["rows"]}


class Notes:
    """Numbers for texts; the same text has the same number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return 1 + self.texts.index(text)

    def __str__(self) -> str:
        return "\n".join(
            textwrap.fill(text, WIDTH, initial_indent=f"{index}. ", subsequent_indent="   ", break_on_hyphens=False)
            for index, text in enumerate(self.texts, 1)
        )


def verdict(row: Row, measured: float | None, reasons: dict[str, str], notes: Notes) -> str:
    """How far off; a miss of more than 30 % either way needs its reason, which becomes a note."""
    if measured is None:
        return ""
    miss = measured / row.predicted - 1
    if abs(miss) <= LARGEST_MISS:
        return f"{miss:+.0%}"
    if row.key not in reasons:
        return f"{miss:+.0%}, **miss**: {NO_REASON}"
    return f"{miss:+.0%}, **miss**, note {notes.number(reasons[row.key])}"


def predictions_tables(records: list[dict], reasons: dict[str, str]) -> str:
    """A table per group and the notes behind them."""
    notes, parts = Notes(), []
    for title, rows in expected.groups().items():
        lines = [
            f"## {title}",
            "",
            "| | predicted | aim: stage A / beyond | measured | off by |",
            "|---|---|---|---|---|",
        ]
        for row in rows:
            measured = row.measure(records)
            cells = [row.item, number(row.predicted), row.aim, number(measured), verdict(row, measured, reasons, notes)]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    if notes.texts:
        parts.append(f"## Notes\n\n{notes}")
    return "\n\n".join(parts)


def page(records: list[dict], caption: str, files: str) -> str:
    """The whole file, made from the records of a GPU's ``files``."""
    command = " ".join(["python -m benchmarks.gpu.tables", *files.split(), "--table predictions"])
    return f"""# Predictions and measurements

Made by `{command}`;
not to be edited. Reasons for misses of more than 30 % go to `gpu-reasons.json` beside this file, by the row's key
(`benchmarks/gpu/expected.py`).

Predicted before any run, for an {predictions.GPU}. {NONE_YET}: not yet measured.

{textwrap.fill(caption, WIDTH, break_on_hyphens=False)}

{predictions_tables(records, reasons=read_reasons())}
"""
