"""The microbenchmarks' Triton kernels: compiled and assembled for sm_90, which needs no GPU."""

import pytest
import torch

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from benchmarks import reductions  # noqa: E402

POINTER = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
ENDS = {"reduction, float32": "add.f32", "reduction, bfloat16": "bf16"}
VECTOR_ENDS = {"reduction, 4 x float32 at once": "v4.f32", "reduction, 2 x bfloat16 at once": "bf16x2"}


def compiled(kernel, signature, constants):
    result = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
    assert len(result.asm["cubin"]) > 1000  # ptxas has taken it
    return reductions.instructions(result.asm["ptx"])


@pytest.mark.parametrize("item", reductions.ADDITIONS)
def test_additions(item):
    dtype, numbers, instruction = reductions.ADDITIONS[item]
    if instruction is None:
        signature = {"target": POINTER[dtype], "count": "i32"}
        (found,) = compiled(reductions.add_kernel, signature, {"BLOCK": reductions.BLOCK})
        assert found.endswith(ENDS[item])
    else:
        constants = {"STRIDE": numbers * dtype.itemsize, "BLOCK": reductions.BLOCK, "INSTRUCTION": instruction}
        (found,) = compiled(reductions.add_vectors_kernel, {"target": POINTER[dtype]}, constants)
        assert found.startswith("red.") and found.endswith(VECTOR_ENDS[item])


def test_ranks():
    signature = {"counters": "*i32", "ranks": "*i32", "count": "i32"}
    constants = {"COUNTERS": 134_400, "BLOCK": reductions.BLOCK}
    (instruction,) = compiled(reductions.rank_kernel, signature, constants)
    assert instruction.startswith("atom.")  # the old value is wanted
