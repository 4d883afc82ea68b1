"""Markdown tables of result files: ``python -m benchmarks.tables [FILE] [--table NAME]``; nothing here needs torch.

Without a result file of a GPU every cell says so.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from benchmarks.predictions import NOT_YET, fill, number, page, predictions_tables, read_reasons
from benchmarks.records import BACKBONES, DEFORM_CONV, FROZEN_BN, MEMORY, latest, microseconds, read, select

OURS, OURS_AUTOCAST = "resnet_cuda, bfloat16", "resnet_cuda, autocast bfloat16"
COLUMNS = {  # of the backbones' table, by candidate
    OURS: "ours, bf16",
    OURS_AUTOCAST: "ours, AMP",
    "torchvision, all bfloat16": "torchvision, bf16",
    "torchvision, autocast bfloat16": "torchvision, AMP",
    "torchvision, autocast bfloat16, TF32 on for its deform_conv2d": "torchvision, TF32",
    "torchvision, all bfloat16, torch.compile": "torchvision, compiled",
}
TORCHVISION = ("torchvision, autocast bfloat16, TF32 off", "torchvision, autocast bfloat16, TF32 on", None)
BESIDE = (  # label, ours, then the peer of each column
    ("autocast bfloat16", OURS_AUTOCAST, *TORCHVISION),
    ("float16", "resnet_cuda, float16", None, None, "mmcv, float16"),
    ("float32, TF32", "resnet_cuda, float32, TF32 on", None, "torchvision, float32, TF32 on", None),
    ("float32", "resnet_cuda, float32, TF32 off", "torchvision, float32, TF32 off", None, None),
)
LAYERS = (("C4", 8), ("C3", 8), ("C5", 8), ("C4", 1), ("C3", 1), ("C5", 1))
MODES = (
    ("inference", 1, False),
    ("inference", 1, True),
    ("inference", 8, False),
    ("training step", 2, False),
    ("training step", 8, False),
)


def markdown(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


def caption(records: list[dict]) -> str:
    """GPU, date and versions of a run; for a dry run, a warning that its numbers mean nothing."""
    facts = latest(records, kind="environment")
    if facts is None:
        return "No GPU run yet."
    if facts["device"] != "cuda":
        return f"DRY RUN on device {facts['device']}: the numbers mean nothing but that the program runs."
    clocks = select(records, kind="clocks")
    driver = next((record["driver"] for record in clocks if "driver" in record), "unknown")
    fastest = max((int(record["sm_mhz"]) for record in clocks if "sm_mhz" in record), default="unknown")
    sources = facts.get("sources") or f"commit {facts['commit']}"
    quick = " QUICK RUN on tiny shapes, no result." if facts.get("quick") else ""
    return (
        f"{facts.get('gpu')}; {facts['date']}, {sources}, torch {facts['torch']}, torchvision {facts['torchvision']}, "
        f"mmcv {facts['mmcv'] or 'not installed'}, driver {driver}; SM clock up to {fastest} MHz.{quick}"
    )


def readme_table(records: list[dict]) -> str:
    """Microseconds of GPU time of resnet_cuda, and the time of each peer relative to it in the same run.

    The last time measured beside a peer is shown; where there is none, the last one.
    """
    body = []
    for label, ours, *peers in BESIDE:
        for stage, batch in LAYERS if ours == OURS_AUTOCAST else LAYERS[:1]:
            for direction in ("forward", "backward"):
                facts = {"kind": "time", "phase": DEFORM_CONV, "op": "deform_conv2d", "stage": stage, "batch": batch}
                found = select(records, **facts, direction=direction, candidate=ours, offset_pixels=2.0)
                own = next((one for one in reversed(found) if one["times_of_ours"]), found[-1] if found else None)
                ratios = own["times_of_ours"] if own else {}
                cells = [f"{stage}, batch {batch}, {label}", direction, number(own and microseconds(own))]
                for peer in peers:
                    cells.append("" if peer is None else f"{ratios[peer]:.1f}x" if peer in ratios else NOT_YET)
                body.append(cells)
    title = "deform_conv2d 3x3, DCNv2, 800x1344"
    return markdown([title, "direction", "ours, µs", "torchvision", "torchvision, TF32", "mmcv, float16"], body)


def frozen_bn_table(records: list[dict]) -> str:
    """Memory bandwidth relative to memcpy of as many bytes in the same process, for the two layouts."""
    variants, body = ("in place", "in place with residual", "backward"), []
    for place in ("stem, batch 8", "C4, batch 8", "C5, batch 8", "C4, batch 1", "C5, batch 1"):
        for layout in ("channels_last", "contiguous"):
            facts = {
                "kind": "time",
                "phase": FROZEN_BN,
                "activation": place,
                "layout": layout,
                "candidate": "resnet_cuda",
            }
            found = [latest(records, variant=variant, **facts) for variant in variants]
            # The first run's records have no copy of as many bytes.
            shares = [one and one.get("share_of_same_copy") for one in found]
            body.append([place, layout, *(NOT_YET if share is None else f"{share:.0%}" for share in shares)])
    return markdown(["frozen_bn_relu, bfloat16: bandwidth relative to memcpy", "layout", *variants], body)


def backbone_table(records: list[dict]) -> str:
    """Milliseconds of GPU time per image, by candidate."""
    body = []
    for kind in ("R-50-FPN", "R-50-DCN"):
        for mode, batch, graph in MODES:
            facts = {
                "kind": "time",
                "phase": BACKBONES,
                "backbone": kind,
                "mode": mode,
                "batch": batch,
                "cuda_graph": graph,
            }
            found = [latest(records, candidate=column, **facts) for column in COLUMNS]
            cells = [number(one and one["ms_per_image"]) for one in found]
            body.append([f"{kind}, {mode}, batch {batch}{', CUDA graph' if graph else ''}", *cells])
    return markdown(["ms/image", *COLUMNS.values()], body)


def measured_rows(table: str) -> tuple[str, list[str]]:
    """The table without its unmeasured rows, and the names of those rows.

    An unmeasured row has a dash in its last cell and no digit in any cell after its name.
    """
    kept, empty = [], []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        values = [cell for cell in cells[1:] if cell]
        if values[-1:] == [NOT_YET] and not any(character.isdigit() for value in values for character in value):
            empty.append(f"{cells[0]}, {cells[1]}" if len(values) > 1 and values[0] != NOT_YET else cells[0])
        else:
            kept.append(line)
    return "\n".join(kept), empty


def without_empty_columns(table: str) -> str:
    """The table without the columns in which no run has measured anything."""
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    used = [set(map(str.strip, column)) - {"", NOT_YET} for column in zip(*rows[2:], strict=True)]
    kept = [index for index, values in enumerate(used) if values]
    return "\n".join(f"|{'|'.join(row[index] for index in kept)}|" for row in rows) if kept else table


def readme(records: list[dict]) -> str:
    """The GPU tables of docs/benchmarking.md."""
    tables = [measured_rows(table(records)) for table in (readme_table, frozen_bn_table, backbone_table)]
    tables = [(without_empty_columns(table), empty) for table, empty in tables]
    empty = [item for _, items in tables for item in items]
    for item in list(empty):  # "x, forward" and "x, backward" are "x"
        stem = item.removesuffix(", forward")
        if item.endswith(", forward") and f"{stem}, backward" in empty:
            empty[empty.index(item)] = stem
            empty.remove(f"{stem}, backward")
    parts = [fill(f"{caption(records)} {NOT_YET}: not measured, or not possible."), *(table for table, _ in tables)]
    return "\n\n".join([*parts, *([fill(f"Not yet measured at all: {'; '.join(empty)}.")] if empty else [])])


def ceilings_table(records: list[dict]) -> str:
    units = ("gigabytes_per_second", "teraflops", "tera_operations_per_second", "gpu_us", "wall_us")
    body = []
    for record in select(records, kind="ceiling"):
        unit = next(unit for unit in units if unit in record)
        body.append([record["item"], str(record[unit]), unit.replace("_", " ")])
    return markdown(["ceiling", "value", "unit"], body)


def gpu_results(records: list[dict]) -> list[dict]:
    """The records of real runs: not of dry runs, and not of quick runs on tiny shapes."""
    return [record for record in records if record.get("device") == "cuda" and not record.get("quick")]


def steps_table(records: list[dict]) -> str:
    done = select(records, kind="step")
    body = [[one["step"], one["title"], one["status"], f"{one['seconds']:.1f}", one["error"] or ""] for one in done]
    return markdown(["step", "content", "status", "seconds", "error"], body)


def verdicts(records: list[dict]) -> list[str]:
    """Results of tests and sanitizer, and where a run ended. Steps without a record are left out."""
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


def spreads(records: list[dict]) -> list[str]:
    """The headlines that were measured a second time, minutes later."""
    lines, keys = (
        [],
        ("op", "candidate", "direction", "stage", "activation", "variant", "layout", "batch", "offset_pixels"),
    )
    for again in select(records, kind="time", phase=MEMORY):
        facts = {key: again[key] for key in keys if key in again}
        before = [one for one in select(records, kind="time", **facts) if one["phase"] in (DEFORM_CONV, FROZEN_BN)]
        pair = [microseconds(one) for one in (*before[-1:], again)]
        if pair[1:]:
            what = ", ".join(str(value) for value in facts.values())
            lines.append(f"Measured again: {what}: {pair[0]:.1f} and {pair[1]:.1f} µs ({pair[1] / pair[0] - 1:+.1%}).")
    return lines


def everything(records: list[dict]) -> str:
    """The summary of a run."""
    missing: dict[str, list[str]] = {}
    for record in select(records, kind="not measured"):
        missing.setdefault(record["reason"], []).append(record["item"])
    left_out = [
        f"- {items[0]}{f' and {len(items) - 1} more' if len(items) > 1 else ''}: {reason}"
        for reason, items in missing.items()
    ]
    shown = gpu_results(records)
    tables = [table(shown) for table in (ceilings_table, readme_table, frozen_bn_table, backbone_table)]
    last = "Not measured:\n\n" + "\n".join(left_out) if left_out else "Nothing was left out."
    predicted = predictions_tables(shown, read_reasons())
    return "\n\n".join(
        [caption(records), steps_table(records), *verdicts(records), *tables, *spreads(shown), predicted, last]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="result files of benchmarks/gpu_run.sh, whole or cut")
    parser.add_argument("--table", choices=("predictions", "readme", "all"), default="predictions")
    chosen = parser.parse_args(arguments)
    for file in chosen.files:
        if not file.exists():
            parser.error(f"{file} is not there")
    records = [record for file in chosen.files for record in read(file)]
    if chosen.table == "predictions":
        names = " ".join(file.name for file in chosen.files)
        print(page(gpu_results(records), caption(records), names), end="")
    else:
        print(readme(records) if chosen.table == "readme" else everything(records))


if __name__ == "__main__":
    main()
