"""What `make toolkits` asks pip for, and that it refuses what another assembler makes spill or warns of.

This machine's own ptxas takes the part of the other one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from compile_gate import toolkits
from compile_gate.assembling import assemble, codes_of, faults_in, isa_of, write_ptx
from compile_gate.checks import instruction_faults, resource_faults
from compile_gate.kernels import Kernel
from compile_gate.limits import FEW_BYTES, Limit
from compile_gate.ptxas_report import Resources

SAMPLES = Path(__file__).with_name("samples")
SMALL = Limit(".*", 8)


@pytest.fixture
def ptxas(tools) -> Path:
    return tools.plan.cuda.root / "bin" / "ptxas"


@pytest.fixture
def assembled(tools, ptxas, tmp_path):
    """What ptxas says of a sample whose PTX is marked as of version 8.8."""

    def assembled(sample: str, architecture: str) -> str:
        ptx = tmp_path / "sample.ptx"
        write_ptx(tools, SAMPLES / sample, architecture, ptx)
        return assemble(ptxas, "8.8", ptx, architecture)

    return assembled


def test_what_pip_is_asked_for():
    assert toolkits.requirements("12.8") == ["nvidia-cuda-nvcc-cu12==12.8.*"]
    assert "nvidia-cuda-nvcc==13.1.*" in toolkits.requirements("13.1")
    assert toolkits.requirements("13.1")[-1] == "nvidia-cuda-cccl==13.1.*"
    assert toolkits.requirements("13.10")[-1] == "nvidia-cuda-cccl>=13.3"


def test_another_toolkit_may_spill_a_few_bytes_but_no_more():
    def faults(spilled: int, toolkit: str) -> list[str]:
        kernel = Kernel("Any", "9.0", Resources(64, spilled, spilled, spilled, 0), {"LDL": 1}, toolkit)
        return resource_faults(kernel, SMALL) + instruction_faults(kernel, SMALL)

    assert faults(FEW_BYTES, "13.4") == []
    assert [fault.split()[0] for fault in faults(FEW_BYTES + 4, "13.4")] == ["spills", "has"]
    assert faults(0, "13.4") == ["has local memory: LDL"]
    assert [fault.split()[0] for fault in faults(4, "13.0")] == ["spills", "has", "uses", "has"]


def test_the_assembler_says_what_it_takes(ptxas):
    assert {"sm_80", "sm_90a"} <= codes_of(ptxas)
    major, minor = map(int, isa_of(ptxas).split("."))
    assert (major, minor) >= (8, 8)


def test_a_good_kernel_has_no_faults(tools, assembled):
    assert faults_in(tools, assembled("accepted.cu", "9.0"), "9.0", "12.9") == []


def test_products_that_are_serialised_are_a_fault(tools, assembled):
    (fault,) = faults_in(tools, assembled("serialised.cu", "9.0a"), "9.0a", "12.9")
    assert "(C7517)" in fault


def test_a_kernel_that_spills_is_a_fault(tools, assembled):
    faults = faults_in(tools, assembled("refused.cu", "9.0"), "9.0", "12.9")
    assert any(fault.startswith("spills: spills") for fault in faults)
    assert not any(fault.startswith("adds_integers") for fault in faults)


def test_what_the_assembler_refuses_is_an_error(ptxas, tmp_path):
    ptx = tmp_path / "broken.ptx"
    ptx.write_text(".version 9.0\n.target sm_90\n.address_size 64\n.entry broken() { nothing; }\n")
    with pytest.raises(RuntimeError, match="nothing|syntax|Parsing"):
        assemble(ptxas, "8.8", ptx, "9.0")
