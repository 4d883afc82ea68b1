"""The microbenchmarks' Triton kernels: compiled and assembled for sm_90, which needs no GPU."""

import pytest
import torch

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from benchmarks.gpu import atomics  # noqa: E402

POINTER = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}


def compiled(kernel, signature, constants):
    result = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
    assert len(result.asm["cubin"]) > 1000  # ptxas has taken it
    return atomics.instructions(result.asm["ptx"])


@pytest.mark.parametrize("item", atomics.ADDITIONS)
def test_one_number_at_a_time(item):
    dtype = atomics.ADDITIONS[item]
    signature = {"target": POINTER[dtype], "count": "i32"}
    (instruction,) = compiled(atomics.add_kernel, signature, {"BLOCK": atomics.BLOCK})
    assert instruction.endswith({torch.float32: "add.f32", torch.bfloat16: "bf16"}[dtype])


@pytest.mark.parametrize("item", atomics.VECTOR_ADDITIONS)
def test_several_numbers_at_a_time(item):
    dtype, numbers, instruction = atomics.VECTOR_ADDITIONS[item]
    constants = {"STRIDE": numbers * dtype.itemsize, "BLOCK": atomics.BLOCK, "INSTRUCTION": instruction}
    (found,) = compiled(atomics.add_vectors_kernel, {"target": POINTER[dtype]}, constants)
    assert found.startswith("red.") and found.endswith({4: "v4.f32", 2: "bf16x2"}[numbers])


def test_ranks():
    signature = {"counters": "*i32", "ranks": "*i32", "count": "i32"}
    (instruction,) = compiled(atomics.rank_kernel, signature, {"COUNTERS": 134_400, "BLOCK": atomics.BLOCK})
    assert instruction.startswith("atom.")  # the old value is wanted
