"""Rates of global reductions and atomics on 19 MB that stay in L2, by tiny Triton kernels.

The kernels' PTX shows which instructions were measured.
"""

import re
from collections.abc import Callable

import torch

from benchmarks.measure import Candidate, Effort, compare_blocks
from benchmarks.records import microseconds

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None
else:

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


Prepared = tuple[int, torch.Tensor, Callable[[], object]]  # operations of a launch, where they go to, the launch
BLOCK, BYTES = 1024, 19_000_000
RANKS = "integer atomics that give a rank"
# dtype, numbers per instruction, and the PTX of what Triton itself does not make (sm_90 and later).
ADDITIONS = {
    "reduction, float32": (torch.float32, 1, None),
    "reduction, bfloat16": (torch.bfloat16, 1, None),
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


def instructions(ptx: str) -> list[str]:
    """The different atomic and reduction instructions of a kernel."""
    return sorted(set(re.findall(r"\b((?:red|atom)\.[\w.:]+)", ptx)))


def _additions(device: torch.device, dtype: torch.dtype, numbers: int, instruction: str | None) -> Prepared:
    blocks = BYTES // (numbers * dtype.itemsize * BLOCK)
    target = torch.zeros(blocks * BLOCK * numbers, dtype=dtype, device=device)
    if instruction is None:
        return target.numel(), target, lambda: add_kernel[(blocks,)](target, target.numel(), BLOCK)
    stride = numbers * dtype.itemsize
    return target.numel(), target, lambda: add_vectors_kernel[(blocks,)](target, stride, BLOCK, instruction)


def _ranks(device: torch.device) -> Prepared:
    """4.8 M entries, as many as C3 at batch 8 has in its input lists, 36 to a counter."""
    count = 36 * 134_400
    counters = torch.zeros(count // 36, dtype=torch.int32, device=device)
    ranks = torch.empty(count, dtype=torch.int32, device=device)
    return count, counters, lambda: rank_kernel[(count // BLOCK,)](counters, ranks, count, counters.numel(), BLOCK)


def why_not(item: str, device: torch.device) -> str | None:
    """Why one of ``ITEMS`` cannot be measured here."""
    if triton is None or device.type != "cuda":
        return "it needs Triton and a GPU"
    if item != RANKS and ADDITIONS[item][2] and torch.cuda.get_device_capability(device) < (9, 0):
        return "the instruction needs sm_90"
    return None


def measure(item: str, device: torch.device, effort: Effort) -> dict[str, object]:
    """The result line of one of ``ITEMS``."""
    count, target, launch = _ranks(device) if item == RANKS else _additions(device, *ADDITIONS[item])
    compiled = launch()
    if not (target == (36 if item == RANKS else 1)).all():
        raise AssertionError(f"{item}: the sums are wrong")
    line = compare_blocks([Candidate(item, [launch])], device, effort)[item]
    rate = round(count / microseconds(line) / 1e6, 4)
    return line | {"tera_operations_per_second": rate, "instructions": instructions(compiled.asm["ptx"])}


ITEMS = (*ADDITIONS, RANKS)
