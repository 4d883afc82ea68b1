"""Every kernel, compiled for every architecture that is promised, within its limits (limits.py).

Without a GPU: nvcc and ptxas compile, ``ptxas -v`` and the disassembled machine code are read. Skipped where there is
no nvcc; ``make gate`` compiles, tests and prints the table.
"""

from __future__ import annotations

import pytest
from compile_gate.checks import instruction_faults, missing_faults, resource_faults, row_faults, rows_of, wide_faults
from compile_gate.limits import limits_on
from compile_gate.tools import GATED, code_name

pytestmark = pytest.mark.parametrize("architecture", GATED, ids=code_name)


def fail_with(faults: list[str]) -> None:
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


def check(kernels, faults_of) -> None:
    """Fails with all the faults that the kernels have by their rows."""
    faults = [
        f"{kernel.name}: {fault}"
        for kernel in kernels
        for limit in rows_of(kernel.name, limits_on(kernel.architecture))
        for fault in faults_of(kernel, limit)
    ]
    fail_with(faults)


def test_every_kernel_has_one_row_and_every_row_a_kernel(kernels, architecture):
    assert kernels
    fail_with(row_faults([kernel.name for kernel in kernels], limits_on(architecture)))


@pytest.mark.usefixtures("kernels")
def test_no_warnings(gate, architecture):
    fail_with(gate.warnings(architecture))


def test_no_spills_no_stack_registers_within_the_budget(kernels):
    check(kernels, resource_faults)


@pytest.mark.usefixtures("disassembler")
def test_no_local_memory_no_compare_and_swap_no_float_atomics(kernels):
    assert all(kernel.instructions for kernel in kernels)
    check(kernels, instruction_faults)


@pytest.mark.usefixtures("disassembler")
def test_accesses_of_16_bytes_where_meant(kernels):
    check(kernels, wide_faults)


@pytest.mark.usefixtures("disassembler")
def test_instructions_that_are_meant(kernels):
    check(kernels, missing_faults)
