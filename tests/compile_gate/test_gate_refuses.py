"""The gate refuses kernels that are bad on purpose, each for its own reason and no other, and accepts a good one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from compile_gate.checks import instruction_faults, missing_faults, resource_faults, wide_faults
from compile_gate.compiling import compile_source
from compile_gate.kernels import Kernel, kernels_of
from compile_gate.limits import Limit
from compile_gate.ptxas_report import Resources, warnings_in
from compile_gate.tools import code_name

SAMPLES = Path(__file__).with_name("samples")
# The oldest and the newest of what has its own way to write instructions.
ARCHITECTURES = ("7.5", "9.0", "12.0")
LENIENT = Limit(".*", 255)
WIDE = Limit(".*", 255, wide={"LDG": 1, "STG": 1})

# kernel: its limits, and how each of its faults begins
REFUSED = {
    "spills": (LENIENT, ["spills", "has a stack", "has local memory: LDL"]),
    "indexes_a_local_array": (LENIENT, ["has a stack", "has local memory: LDL"]),
    "adds_halves": (LENIENT, ["has compare and swap: ATOM"]),
    "adds_bfloat16": (LENIENT, ["has compare and swap: ATOM"]),
    "adds_doubles_in_a_loop": (LENIENT, ["has compare and swap: ATOM"]),
    "adds_floats_in_shared_memory": (LENIENT, ["has compare and swap: ATOMS.CAST"]),
    "adds_floats": (LENIENT, ["has a float atomic: RED"]),
    "fetches_and_adds_doubles": (LENIENT, ["has a float atomic: ATOM"]),
    "adds_integers": (LENIENT, ["has an integer atomic, not listed for it: RED"]),
    "writes_to_either": (LENIENT, ["has a generic access: ST"]),
    "copies_by_four_bytes": (WIDE, ["has 0 LDG of 16 bytes", "has 0 STG of 16 bytes"]),
    "loads_16_bytes_only": (WIDE, ["has 0 STG of 16 bytes"]),
}
ACCEPTED = Limit("turns_around<uint4>", 32, wide={"LDG": 1, "STG": 1, "LDS": 1, "STS": 1}, integer_atomics=True)


def faults_of(kernel, limit: Limit) -> list[str]:
    return [fault for check in (resource_faults, instruction_faults, wide_faults) for fault in check(kernel, limit)]


@pytest.fixture(params=ARCHITECTURES, ids=code_name)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def compiled(tools, disassembler, known_architecture):
    """Kernels of a sample by their names."""
    return lambda sample: {kernel.name: kernel for kernel in kernels_of(tools, SAMPLES / sample, known_architecture)}


def test_every_bad_kernel_is_refused_for_its_reason_only(compiled):
    kernels = compiled("refused.cu")
    assert kernels.keys() == REFUSED.keys()
    for name, (limit, beginnings) in REFUSED.items():
        faults = faults_of(kernels[name], limit)
        if name.startswith("adds"):  # nvcc's own loops use generic accesses, on some architectures
            faults = [fault for fault in faults if "generic" not in fault]
        assert len(faults) == len(beginnings), (name, faults)
        for fault, beginning in zip(faults, beginnings, strict=True):
            assert fault.startswith(beginning), name


def test_a_good_kernel_is_accepted(compiled):
    (kernel,) = compiled("accepted.cu").values()
    assert kernel.name == ACCEPTED.kernel
    assert faults_of(kernel, ACCEPTED) == []


def test_one_register_less_than_needed_is_refused(compiled):
    (kernel,) = compiled("accepted.cu").values()
    needed = kernel.resources.registers
    assert resource_faults(kernel, Limit(".*", needed)) == []
    assert resource_faults(kernel, Limit(".*", needed - 1)) == [
        f"uses {needed} registers on {kernel.architecture}, its row '.*' in limits.py allows {needed - 1}"
    ]
    assert resource_faults(kernel, Limit(".*", needed - 1, {kernel.architecture: needed})) == []
    assert resource_faults(kernel, Limit(".*", needed, {kernel.architecture: needed - 1})) != []


def test_a_register_cap_makes_it_spill(tools):
    """The reason may also lie in the command, not in the source."""
    kernels = kernels_of(tools, SAMPLES / "refused.cu", "9.0", "-maxrregcount=24")
    faults = {kernel.name: resource_faults(kernel, LENIENT) for kernel in kernels}
    assert any(fault.startswith("spills") for fault in faults["spills"])
    assert faults["adds_integers"] == []


def test_what_does_not_compile_is_an_error(tools, tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text("__global__ void broken(int* data) { data[0] = nowhere; }\n")
    with pytest.raises(RuntimeError, match="nowhere"):
        kernels_of(tools, source, "9.0")


@pytest.fixture
def calling(tmp_path) -> Path:
    """A kernel whose bad instruction lies in a function that is not inlined."""
    source = tmp_path / "calling.cu"
    source.write_text(
        "__device__ __noinline__ float apart(float* data) { atomicAdd(data, 1.f); return data[1]; }\n"
        "__global__ void calls(float* data) { data[0] = apart(data + 7) + apart(data + 9); }\n"
    )
    return source


def test_a_called_function_counts_with_its_kernel(tools, disassembler, calling):
    (kernel,) = kernels_of(tools, calling, "9.0")
    assert kernel.name == "calls"
    assert instruction_faults(kernel, LENIENT)[-1].startswith("has a float atomic")


def test_a_function_that_counts_with_no_kernel_is_an_error(tools, disassembler, calling):
    with pytest.raises(ValueError, match="apart"):
        kernels_of(tools, calling, "9.0", "-rdc=true")


def test_the_second_time_nothing_is_compiled(tools, tmp_path, monkeypatch):
    from compile_gate import compiling

    monkeypatch.setattr(compiling, "FOLDER", tmp_path / "cache")
    source = tmp_path / "once.cu"
    source.write_text("__global__ void once(int* data) { data[0] = 1; }\n")
    first = compiling.compile_source(tools, source, "9.0")
    monkeypatch.setattr(compiling, "output_of", lambda command, text=None: pytest.fail("compiled again"))
    assert compiling.compile_source(tools, source, "9.0") == first
    monkeypatch.undo()
    monkeypatch.setattr(compiling, "FOLDER", tmp_path / "cache")
    source.write_text("__global__ void once(int* data) { data[0] = 2; }\n")
    assert compiling.compile_source(tools, source, "9.0").cubin != first.cubin


def test_a_wait_for_wgmma_by_the_compiler_is_refused(tools):
    architecture = "9.0a"
    if code_name(architecture) not in tools.known_codes:
        pytest.skip(f"this nvcc knows no {code_name(architecture)}")
    (said,) = warnings_in(compile_source(tools, SAMPLES / "serialised.cu", architecture).log)
    assert "(C7517) warpgroup.wait is injected" in said


@pytest.mark.parametrize("found", [0, 1, 3])
def test_another_number_of_instructions_than_meant_is_refused(found):
    instructions = Counter({"HGMMA.64x128x16.F32": found, "HGMMAX": 2, "WARPGROUP.DEPBAR.LE": 2, "WARPGROUP.ARRIVE": 1})
    kernel = Kernel("Any", "9.0a", Resources(32, 0, 0, 0, 0), instructions)
    meant = Limit(".*", 255, exactly={"HGMMA": 1, "WARPGROUP.DEPBAR": 2})
    assert missing_faults(kernel, meant) == ([] if found == 1 else [f"has {found} HGMMA, 1 are meant"])
