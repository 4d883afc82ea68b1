"""Reading ptxas's report, machine code and demangled names; these run on machines without nvcc."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from compile_gate.checks import row_faults
from compile_gate.kernels import short_name
from compile_gate.limits import Limit, limits_on
from compile_gate.ptxas_report import Resources, parse_report, warnings_in
from compile_gate.sass import (
    count_wide,
    is_compare_and_swap,
    is_float_atomic,
    is_generic,
    is_integer_atomic,
    is_local_memory,
    parse_sass,
)

REPORT = """\
ptxas info    : 28 bytes gmem
ptxas info    : Compiling entry function '_Z4wide' for 'sm_90'
ptxas info    : Function properties for _Z4wide
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 18 registers, used 1 barriers, 512 bytes smem
ptxas info    : Compile time = 1.324 ms
ptxas info    : Compiling entry function '_Z6spills' for 'sm_90'
ptxas info    : Function properties for _Z6spills
    896 bytes stack frame, 1312 bytes spill stores, 1748 bytes spill loads
ptxas info    : Function properties for _Z6called
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 912 bytes cumulative stack size
ptxas info    : Compiling entry function '_Z4wide' for 'sm_75'
ptxas info    : Function properties for _Z4wide
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 1 barriers, 512 bytes smem, 368 bytes cmem[0]
"""


def test_report():
    assert parse_report(REPORT, "sm_90") == {
        "_Z4wide": Resources(registers=18, spill_stores=0, spill_loads=0, stack=0, shared=512),
        "_Z6spills": Resources(registers=32, spill_stores=1316, spill_loads=1756, stack=912, shared=0),
    }
    assert parse_report(REPORT, "sm_75")["_Z4wide"].registers == 20
    assert parse_report(REPORT, "sm_80") == {}


def test_report_in_a_format_unknown():
    with pytest.raises(ValueError, match="_Z4wide"):
        parse_report(REPORT.replace("Used", "Uses"), "sm_90")


LOG = """\
/home/me/csrc/common/pack.cuh(131): warning #128-D: loop is not reachable
    for (int i = 0; i < N; ++i) {
/home/me/csrc/common/pack.cuh(131): warning #128-D: loop is not reachable
Remark: The warnings can be suppressed with "-diag-suppress <warning-number>"
/home/me/torch/include/c10/macros.h(12): warning #20012-D: annotation is ignored
nvcc warning : Support for offline compilation for architectures prior to '<compute/sm/lto>_75' will be removed
ptxas warning : Value of threads per SM for entry _Z6spills is out of range. .minnctapersm will be ignored
"""


def test_warnings():
    assert warnings_in(LOG) == [
        "/home/me/csrc/common/pack.cuh(131): warning #128-D: loop is not reachable",
        "ptxas warning : Value of threads per SM for entry _Z6spills is out of range. .minnctapersm will be ignored",
    ]
    assert warnings_in(REPORT) == []


SASS = """\
//--------------------- .text._Z1a      --------------------------
	.section	.text._Z1a,"ax",@progbits
_Z1a:
.text._Z1a:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0060*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR6][R2.64] ;
        /*00c0*/              @UP1 UIADD3 UR4, UR4, 0x1, URZ ;
        /*00d0*/                   CALL.REL.NOINC `($__internal_1_$__cuda_sm20_div_s64) ;
.L_x_1:
        /*10e0*/                   LDG.E.128.CONSTANT R4, [R2] ;
\t.section\t.text._Z1b,"ax",@progbits
        /*0000*/                   EXIT ;
"""


def test_instructions():
    kernels = parse_sass(SASS)
    assert kernels == {
        "_Z1a": Counter({"LDG.E.128.CONSTANT": 2, "LDC": 1, "UIADD3": 1, "CALL.REL.NOINC": 1}),
        "_Z1b": Counter({"EXIT": 1}),
    }
    assert count_wide(kernels["_Z1a"], "LDG") == 2
    assert count_wide(kernels["_Z1a"], "STG") == 0


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        ("LDL.LU.64", is_local_memory),
        ("STL", is_local_memory),
        ("ATOM.E.CAS.STRONG.GPU", is_compare_and_swap),
        ("ATOMG.E.CAS.64.STRONG.GPU", is_compare_and_swap),
        ("ATOMS.CAST.SPIN.64", is_compare_and_swap),
        ("RED.E.ADD.F32.FTZ.RN.STRONG.GPU", is_float_atomic),
        ("REDG.E.ADD.F64.RN.STRONG.GPU", is_float_atomic),
        ("ATOM.E.ADD.F16x2.RN.STRONG.GPU", is_float_atomic),
        ("ATOMG.E.ADD.BF16x2.RN.STRONG.GPU", is_float_atomic),
        ("RED.E.ADD.STRONG.GPU", is_integer_atomic),
        ("ATOMG.E.EXCH.STRONG.GPU", is_integer_atomic),
        ("ATOMS.POPC.INC.32", is_integer_atomic),
        ("ST.E.128", is_generic),
        ("LD.E.SYS", is_generic),
        ("REDUX.SUM.S32", None),
        ("LDG.E.128.CONSTANT", None),
        ("FADD.FTZ", None),
        ("LDS.128", None),
    ],
)
def test_kinds_of_instructions(instruction, kind):
    kinds = [is_local_memory, is_compare_and_swap, is_float_atomic, is_integer_atomic, is_generic]
    assert [it for it in kinds if it(instruction)] == ([kind] if kind else [])


@pytest.mark.parametrize(
    ("instruction", "wide"),
    [
        ("LDG.E.128", 1),
        ("LDG.E.128.CONSTANT.SYS", 1),
        ("LDG.E.ENL2.256", 1),
        ("LDG.E.64", 0),
        ("LDG.E.LTC128B", 0),
        ("LDS.128", 0),
        ("LDGSTS.E.128", 0),
    ],
)
def test_width_of_global_loads(instruction, wide):
    assert count_wide(Counter([instruction]), "LDG") == wide


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        (
            "void resnet_cuda::device::run_body<resnet_cuda::ForEachIndex<resnet_cuda::FrozenBnBackward<c10::BFloat16, "
            "float> > >(resnet_cuda::ForEachIndex<resnet_cuda::FrozenBnBackward<c10::BFloat16, float> >)",
            "ForEachIndex<FrozenBnBackward<BFloat16, float>>",
        ),
        (
            "void resnet_cuda::device::run_body<resnet_cuda::(anonymous namespace)::Sample<float, 4> >"
            "(resnet_cuda::(anonymous namespace)::Sample<float, 4>)",
            "Sample<float, 4>",
        ),
        ("void resnet_cuda::device::run_body<resnet_cuda::AnyBody>(resnet_cuda::AnyBody)", "AnyBody"),
        ("void resnet_cuda::turns_around<uint4>(uint4*, uint4 const*)", "turns_around<uint4>"),
        ("resnet_cuda::spills(float*, int)", "spills"),
        ("main", "main"),
    ],
)
def test_short_names(demangled, short):
    assert short_name(demangled) == short


def test_a_row_for_an_architecture_that_is_not_supported_is_an_error():
    with pytest.raises(ValueError, match=r"registers_on of 'Place' has \['9.1'\]; allowed are 7.5, "):
        Limit("Place", 32, {"9.0": 40, "9.1": 48})


def test_rows():
    limits = (Limit(r"Sample<\w+>", 32), Limit(r"Sample<float>|Place", 32))
    assert row_faults(["Sample<Half>", "Place"], limits) == []
    assert row_faults(["Sample<Half>"], limits) == [r"the row 'Sample<float>|Place' of limits.py matches no kernel"]
    assert row_faults(["Sample<Half>", "Sample<float>", "MySample<Half>"], limits) == [
        "MySample<Half> must match one row of limits.py, but matches 0: none",
        r"Sample<float> must match one row of limits.py, but matches 2: 'Sample<\\w+>', 'Sample<float>|Place'",
    ]


def test_no_kernel_is_in_files_for_sm_90a_and_in_others():
    """Of two files that launch the same kernel the linker keeps one launch: perhaps the one for sm_90a alone."""

    def names(architecture):
        return {re.match(r"\w+", limit.kernel.removeprefix("ForEachIndex<"))[0] for limit in limits_on(architecture)}

    assert len(names("9.0a")) > 8
    assert not names("9.0a") & names("9.0")
