"""Markdown tables of a result file: ``python -m benchmarks.gpu.tables [FILE] [--table NAME]``; nothing here needs torch.

Without a result file of a GPU every cell says so.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from pathlib import Path

from benchmarks.gpu import expected, names
from benchmarks.gpu.names import BACKWARD, FORWARD
from benchmarks.gpu.predictions_page import NONE_YET, WIDTH, number, page, predictions_tables, read_reasons
from benchmarks.gpu.records import best_known, latest, matches, read

NOT_YET = NONE_YET  # a cell's value that no run has measured


def markdown(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


def caption(records: list[dict]) -> str:
    """What it was measured on; that it was not, where the records are a dry run's."""
    facts = latest(records, kind="environment")
    if facts is None:
        return "No GPU run yet."
    if facts["device"] != "cuda":
        return f"DRY RUN on device {facts['device']}: the numbers mean nothing but that the program runs."
    clocks = [record for record in records if record.get("kind") == "clocks"]
    driver = next((record["driver"] for record in clocks if "driver" in record), "unknown")
    fastest = max((int(record["sm_mhz"]) for record in clocks if "sm_mhz" in record), default="unknown")
    sources = facts.get("sources") or f"commit {facts['commit']}"
    quick = " QUICK RUN on tiny shapes, no result." if facts.get("quick") else ""
    return (
        f"{facts.get('gpu')}; {facts['date']}, {sources}, torch {facts['torch']}, torchvision "
        f"{facts['torchvision']}, mmcv {facts['mmcv'] or 'not installed'}, driver {driver}; SM clock up to {fastest} MHz.{quick}"
    )


def own_time(records: list[dict], facts: dict) -> dict | None:
    """The last time of ours that was measured beside a peer; the last one at all where none was."""
    found = [one for one in records if matches(one, {"kind": "time", "phase": "4", **facts})]
    return next((one for one in reversed(found) if one["times_of_ours"]), found[-1] if found else None)


def readme_table(records: list[dict]) -> str:
    """Ours beside the peers: microseconds of GPU time, and how many times as long the peers take, in the same run."""
    rows = (  # label, ours, then the peer of each column
        ("autocast bfloat16", names.OURS_AUTOCAST, names.TORCHVISION_AUTOCAST, names.TORCHVISION_AUTOCAST_TF32, None),
        ("float16", names.OURS_FLOAT16, None, None, names.MMCV_FLOAT16),
        ("float32, TF32", names.OURS_TF32, None, names.TORCHVISION_TF32, None),
        ("float32", names.OURS_FLOAT32, names.TORCHVISION_FLOAT32, None, None),
    )
    layers = [("C4", 8), ("C3", 8), ("C5", 8), ("C4", 1), ("C3", 1), ("C5", 1)]
    body = []
    for label, ours, *peers in rows:
        for stage, batch in layers if ours == names.OURS_AUTOCAST else layers[:1]:
            for direction in (FORWARD, BACKWARD):
                own = own_time(records, expected.deform_conv(direction, ours, stage, batch))
                ratios = {} if own is None else own["times_of_ours"]
                cells = [f"{stage}, batch {batch}, {label}", direction, number(best_known(own))]
                for peer in peers:
                    cells.append("" if peer is None else f"{ratios[peer]:.1f}x" if peer in ratios else NOT_YET)
                body.append(cells)
    return markdown(
        ["deform_conv2d 3x3, v2, 800x1344", "", "ours, µs", "torchvision", "torchvision with TF32", "mmcv half"], body
    )


def frozen_bn_table(records: list[dict]) -> str:
    """Shares of the speed of a copy, for the two layouts."""
    places, variants = (
        ("stem, batch 8", "C4, batch 8", "C4, batch 1"),
        ("in place", "in place with residual", "backward"),
    )
    body = []
    for place in places:
        for layout in ("channels_last", "contiguous"):
            facts = {"kind": "time", "phase": "6", "activation": place, "layout": layout, "candidate": "resnet_cuda"}
            found = [latest(records, variant=variant, **facts) for variant in variants]
            body.append([place, layout, *(NOT_YET if one is None else f"{one['share_of_copy']:.0%}" for one in found)])
    return markdown(["frozen_bn_relu, bfloat16, share of a copy's speed", "layout", *variants], body)


def backbone_table(records: list[dict]) -> str:
    """Milliseconds of GPU time per image, by candidate."""
    columns = {
        names.OURS_BFLOAT16: "ours, bfloat16",
        names.OURS_AUTOCAST: "ours, autocast",
        names.EAGER_BFLOAT16: "torchvision, bfloat16",
        names.EAGER_AUTOCAST: "autocast",
        names.EAGER_AUTOCAST_TF32: "autocast, TF32",
        names.COMPILED_BFLOAT16: "torch.compile",
    }
    body = []
    for kind in (names.PLAIN, names.DEFORMABLE):
        for mode, batch, graph in (
            (names.INFERENCE, 1, False),
            (names.INFERENCE, 1, True),
            (names.INFERENCE, 8, False),
            (names.TRAINING, 2, False),
            (names.TRAINING, 8, False),
        ):
            facts = [expected.backbone(kind, mode, batch, column, graph) for column in columns]
            found = [latest(records, kind="time", phase="7", **one) for one in facts]
            cells = [number(None if one is None else one["ms_per_image"]) for one in found]
            body.append([f"{kind}, {mode}, batch {batch}{', graph' if graph else ''}", *cells])
    return markdown(["ms per image", *columns.values()], body)


def measured_rows(table: str) -> tuple[str, list[str]]:
    """The table without the rows in which nothing is measured, and the names of these."""
    kept, empty = [], []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        values = [cell for cell in cells[1:] if cell]
        if values[-1:] == [NOT_YET] and not any(character.isdigit() for value in values for character in value):
            label = f"{cells[0]}, {cells[1]}" if len(values) > 1 and values[0] != NOT_YET else cells[0]
            empty.append(label)
        else:
            kept.append(line)
    return "\n".join(kept), empty


def _without_directions(items: list[str]) -> list[str]:
    """ "x, forward" and "x, backward" are "x"."""
    shown = []
    for item in items:
        stem = item.removesuffix(f", {FORWARD}").removesuffix(f", {BACKWARD}")
        both = f"{stem}, {FORWARD}" in items and f"{stem}, {BACKWARD}" in items
        if (stem if both else item) not in shown:
            shown.append(stem if both else item)
    return shown


def readme(records: list[dict]) -> str:
    """What stands in the project's README."""
    tables = [measured_rows(table(records)) for table in (readme_table, frozen_bn_table, backbone_table)]
    empty = _without_directions([name for _, names_ in tables for name in names_])
    parts = [textwrap.fill(f"{caption(records)} {NOT_YET}: not yet measured.", WIDTH, break_on_hyphens=False)]
    parts += [table for table, _ in tables]
    if empty:
        parts.append(textwrap.fill(f"Not yet measured at all: {'; '.join(empty)}.", WIDTH, break_on_hyphens=False))
    return "\n\n".join(parts)


def ceilings_table(records: list[dict]) -> str:
    body = []
    for record in records:
        if record.get("kind") == "ceiling":
            units = ("gigabytes_per_second", "teraflops", "tera_operations_per_second", "gpu_us", "wall_us")
            unit = next(unit for unit in units if unit in record)
            body.append([record["item"], str(record[unit]), unit.replace("_", " ")])
    return markdown(["ceiling", "value", "unit"], body)


def gpu_results(records: list[dict]) -> list[dict]:
    """What may stand in a table of results: not a dry run's numbers, nor those of tiny shapes."""
    return [record for record in records if record.get("device") == "cuda" and not record.get("quick")]


def steps_table(records: list[dict]) -> str:
    body = [
        [record["step"], record["title"], record["status"], f"{record['seconds']:.1f}", record["error"] or ""]
        for record in records
        if record.get("kind") == "step"
    ]
    return markdown(["step", "", "status", "s", "error"], body)


def verdicts(records: list[dict]) -> list[str]:
    """What the tests and the sanitizer say, and where a run ended; nothing of steps that left no record."""
    lines = []
    for record in records:
        if record.get("kind") == "ended":
            lines.append(f"**Ended at once: {record['step']} has failed: {record['reason']}**")
        elif record.get("kind") == "tests" and not record["collected_only"]:
            whole = "whole" if record["whole"] else "cut by its deadline: no verdict on the rest"
            counts = ", ".join(f"{record[word]} {word}" for word in ("passed", "failed", "error", "skipped"))
            lines.append(f"`pytest -m cuda`, {whole}: {counts}. {' '.join(record['failures'])}".strip())
        elif record.get("kind") == "sanitizer":
            lines.append(f"{record['item']}: {record['verdict']}, after {record['shapes']} shapes.")
    return lines


def everything(records: list[dict]) -> str:
    """The summary of a run."""
    missing: dict[str, list[str]] = {}
    for record in records:
        if record.get("kind") == "not measured":
            missing.setdefault(record["reason"], []).append(record["item"])
    left_out = [
        f"- {items[0]}{f' and {len(items) - 1} more' if len(items) > 1 else ''}: {reason}"
        for reason, items in missing.items()
    ]
    shown = gpu_results(records)
    return "\n\n".join(
        [
            caption(records),
            steps_table(records),
            *verdicts(records),
            ceilings_table(shown),
            readme_table(shown),
            frozen_bn_table(shown),
            backbone_table(shown),
            predictions_tables(shown, read_reasons()),
            "Not measured:\n\n" + "\n".join(left_out) if left_out else "Nothing was left out.",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.tables", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="result files of benchmarks/gpu_run.sh, whole or cut")
    parser.add_argument("--table", choices=("predictions", "readme", "all"), default="predictions")
    chosen = parser.parse_args(arguments)
    for file in chosen.files:
        if not file.exists():
            parser.error(f"{file} is not there")
    records = [record for file in chosen.files for record in read(file)]
    if chosen.table == "predictions":
        names_ = " ".join(file.name for file in chosen.files)
        print(page(gpu_results(records), caption(records), names_), end="")
    elif chosen.table == "readme":
        print(readme(records))
    else:
        print(everything(records))


if __name__ == "__main__":
    main()
