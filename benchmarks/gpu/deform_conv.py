"""deform_conv2d: candidates that agree with float32 are timed in turns on the same values; each gets a result line."""

from benchmarks import predictions
from benchmarks.cases import layer
from benchmarks.gpu.cells import FLOAT32, Cell
from benchmarks.gpu.context import Context, first_line
from benchmarks.measure import compare_blocks, sets_needed
from benchmarks.peers.variants import PACKAGE, VARIANTS, candidate, errors, make_set, results
from benchmarks.records import microseconds


def measure(context: Context, cell: Cell) -> None:
    """Records each candidate's time with its lower bound and prediction, and the peers' times relative to ours."""
    case, direction = layer(cell.where, cell.batch, context.quick), cell.what
    first = make_set(case, context.device, 0, cell.offset_pixels)
    # As many sets as the smallest arguments (16 bit) need, and the same ones for all.
    count = sets_needed(sum(tensor.nbytes for tensor in vars(first).values()) // 2, context.device)
    sets = [first, *(make_set(case, context.device, seed, cell.offset_pixels) for seed in range(1, count))]
    key = (case.name, cell.offset_pixels, direction)
    expected = context.once(key, lambda: results(FLOAT32[1], case, first, direction))
    candidates, off_by = [], {}
    for name in cell.candidates:
        item = f"{case.name}, {direction}, {name}"
        try:
            made = candidate(name, case, sets, direction)
            with made.setting():
                off_by[name] = errors(made.calls[0](), expected, direction)
        except (ImportError, RuntimeError) as error:  # kernels that refuse this dtype; more memory than there is
            reason = first_line(error)
        else:
            allowed, wrong = VARIANTS[name].tolerance, max(off_by[name].values())
            if allowed is None or wrong <= allowed:
                candidates.append(made)
                continue
            reason = f"differs from float32 by {off_by[name]}; allowed {allowed}"
        context.not_measured(item, reason)
        if VARIANTS[name].package == PACKAGE or name in off_by:
            context.failures.append(f"{item}: {reason}")
    lines = compare_blocks(candidates, context.device, context.effort, l2_warm=True)
    others = {name: microseconds(line) for name, line in lines.items() if VARIANTS[name].package != PACKAGE}
    for name, line in lines.items():
        us, floor = microseconds(line), predictions.floor_us(direction, cell.batch, name)
        facts = {"op": cell.op, "direction": direction, "stage": cell.where, "batch": cell.batch, "candidate": name}
        facts |= {"offset_pixels": cell.offset_pixels, **line, "floor_us": floor, "error": off_by[name]}
        facts["over_floor"] = floor and round(us / floor, 3)
        facts["predicted_us"] = predictions.predicted_us(direction, case.name, name)
        ours = VARIANTS[name].package == PACKAGE
        facts["times_of_ours"] = {other: round(theirs / us, 3) for other, theirs in others.items()} if ours else {}
        context.write("time", **facts)
