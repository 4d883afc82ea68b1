"""Ceilings of global reductions on 19 MB that stay in L2, by tiny Triton kernels; the PTX says what was really measured."""

from __future__ import annotations

import re

import torch

from benchmarks.gpu.context import Context
from benchmarks.gpu.records import best_known
from benchmarks.gpu.timing import QUICK, Effort, microseconds

try:
    import triton
    import triton.language as tl
except ImportError as error:
    triton, MISSING = None, str(error)
else:
    MISSING = None

    @triton.jit
    def add_kernel(target, count, BLOCK: tl.constexpr):  # noqa: N803 - Triton's own spelling
        """Adds 1 to every element; nobody reads the old value, so the compiler may reduce without an answer."""
        place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.atomic_add(target + place, tl.full((BLOCK,), 1, target.dtype.element_ty), mask=place < count, sem="relaxed")

    @triton.jit
    def add_vectors_kernel(target, STRIDE: tl.constexpr, BLOCK: tl.constexpr, INSTRUCTION: tl.constexpr):  # noqa: N803
        """``INSTRUCTION`` at every ``STRIDE`` bytes; it adds 1 to all numbers there. The target is full: no mask."""
        place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        address = target.to(tl.int64) + place * STRIDE
        tl.inline_asm_elementwise(INSTRUCTION, "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1)

    @triton.jit
    def rank_kernel(counters, ranks, count, COUNTERS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
        """Integer counting that keeps the old value: element i gets its rank among those of its counter."""
        place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        rank = tl.atomic_add(counters + place % COUNTERS, 1, mask=place < count, sem="relaxed")
        tl.store(ranks + place, rank, mask=place < count)


BLOCK = 1024
BYTES = 19_000_000
ADDITIONS = {"reduction, float32": torch.float32, "reduction, bfloat16": torch.bfloat16}
# Several numbers by one instruction, sm_90 and later: dtype, numbers, PTX (Triton itself makes scalar ones).
VECTOR_ADDITIONS = {
    "reduction, 4 x float32 at once": (
        torch.float32,
        4,
        "{ .reg .f32 one; mov.f32 one, 0f3F800000; "
        "red.relaxed.gpu.global.add.v4.f32 [$1], {one, one, one, one}; mov.b32 $0, 0; }",
    ),
    "reduction, 2 x bfloat16 at once": (
        torch.bfloat16,
        2,
        "{ .reg .b32 ones; mov.b32 ones, 0x3F803F80; "
        "red.relaxed.gpu.global.add.noftz.bf16x2 [$1], ones; mov.b32 $0, 0; }",
    ),
}
RANKS = "integer atomics that give a rank"


def instructions(ptx: str) -> list[str]:
    """The different atomic and reduction instructions of a kernel."""
    return sorted(set(re.findall(r"\b((?:red|atom)\.[\w.:]+)", ptx)))


def measure(context: Context) -> None:
    if triton is None or context.device.type != "cuda":
        reason = f"Triton is missing: {MISSING}" if triton is None else "Triton's kernels need a GPU"
        for item in (*ADDITIONS, *VECTOR_ADDITIONS, RANKS):
            context.not_measured(item, reason)
        return
    for item, dtype in ADDITIONS.items():
        if context.enough_time(item):
            _write(context, item, *_addition(dtype, context.device))
    for item, (dtype, numbers, instruction) in VECTOR_ADDITIONS.items():
        if torch.cuda.get_device_capability(context.device) < (9, 0):
            context.not_measured(item, "the instruction needs sm_90")
        elif context.enough_time(item):
            _write(context, item, *_vector_addition(dtype, numbers, instruction, context.device))
    if context.enough_time(RANKS):
        _write(context, RANKS, *_ranks(context.device))


def _addition(dtype: torch.dtype, device: torch.device):
    target = torch.zeros(BYTES // dtype.itemsize // BLOCK * BLOCK, dtype=dtype, device=device)
    grid = (target.numel() // BLOCK,)
    compiled = add_kernel[grid](target, target.numel(), BLOCK)
    if not (target == 1).all():
        raise AssertionError(f"the {dtype} reductions do not add up to 1")
    return target.numel(), compiled, lambda: add_kernel[grid](target, target.numel(), BLOCK)


def _vector_addition(dtype: torch.dtype, numbers: int, instruction: str, device: torch.device):
    stride = numbers * dtype.itemsize
    target = torch.zeros(BYTES // (stride * BLOCK) * BLOCK * numbers, dtype=dtype, device=device)
    grid = (target.numel() // numbers // BLOCK,)
    compiled = add_vectors_kernel[grid](target, stride, BLOCK, instruction)
    if not (target == 1).all():
        raise AssertionError(f"the {dtype} reductions do not add up to 1")
    return target.numel(), compiled, lambda: add_vectors_kernel[grid](target, stride, BLOCK, instruction)


def _ranks(device: torch.device):
    """4.8 M entries, as the lists of C3 at batch 8 have, 36 to a counter."""
    count = 36 * 134_400
    counters = torch.zeros(134_400, dtype=torch.int32, device=device)
    ranks = torch.empty(count, dtype=torch.int32, device=device)
    grid = (triton.cdiv(count, BLOCK),)
    compiled = rank_kernel[grid](counters, ranks, count, counters.numel(), BLOCK)
    if not (counters == 36).all():
        raise AssertionError("the counters are not 36")
    return count, compiled, lambda: rank_kernel[grid](counters, ranks, count, counters.numel(), BLOCK)


def _write(context: Context, item: str, count: int, compiled, call) -> None:
    line = microseconds(call, context.device, QUICK if context.quick else Effort())
    context.write(
        "ceiling",
        item=item,
        **line,
        tera_operations_per_second=round(count / best_known(line) / 1e6, 4),
        instructions=instructions(compiled.asm["ptx"]),
    )
