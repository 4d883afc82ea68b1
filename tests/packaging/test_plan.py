"""What will be built, for which GPUs, and the errors of the build."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from build_native import BuildError, architectures, make_plan, native, plan
from build_native.architectures import choose, gpus_present, nvcc_flags, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8.0", ("8.0",)),
        ("8.0;9.0+PTX", ("8.0", "9.0+PTX")),
        ("7.5 8.6", ("7.5", "8.6")),
        ("9.0a;9.0a", ("9.0a",)),
        ("Turing;Hopper", ("7.5", "9.0+PTX")),
        ("Turing+PTX", ("7.5+PTX",)),
        ("12.0", ("12.0",)),
    ],
)
def test_architecture_lists_are_read(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["8", "sm_80", "8.0;Zen", "8.0,9.0"])
def test_an_unknown_architecture_is_refused(text):
    with pytest.raises(BuildError, match=r"TORCH_CUDA_ARCH_LIST has '.*'; allowed are numbers such as 8.0"):
        parse(text)


def test_nvcc_flags_of_architectures():
    pairs = ["compute_80,code=sm_80", "compute_90,code=sm_90", "compute_90,code=compute_90"]
    assert nvcc_flags(("8.0", "9.0+PTX"))[1::2] == [f"arch={pair}" for pair in pairs]


@pytest.mark.parametrize(("gpus", "expected"), [("8.6\n8.6\n7.5", ("7.5", "8.6")), ("[N/A]", ()), (None, ())])
def test_gpus_present_are_asked_of_nvidia_smi(gpus, expected, tmp_path, monkeypatch):
    if gpus is not None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\nprintf '{gpus}'\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    assert gpus_present() == expected


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_BUILD", "gpu")
    with pytest.raises(BuildError, match="RESNET_CUDA_BUILD is 'gpu'; allowed are auto, cpu, cuda, none"):
        make_plan()


def test_each_choice_plans_its_parts(fake_toolkit, monkeypatch):
    nvcc = fake_toolkit()
    monkeypatch.setenv("CUDA_HOME", str(nvcc.parents[1]))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0 9.0+PTX")
    plans = {}
    for choice in ("none", "cpu", "auto", "cuda"):
        monkeypatch.setenv("RESNET_CUDA_BUILD", choice)
        plans[choice] = make_plan()
    assert plans["none"].compiler is None
    assert plans["cpu"].compiler
    assert plans["cpu"].cuda is None
    for choice in ("auto", "cuda"):
        assert plans[choice].cuda.root == nvcc.parents[1]
        assert plans[choice].architectures == ("8.0", "9.0+PTX")
        assert str(nvcc.parents[1]) in plans[choice].describe()
        assert "8.0 9.0+PTX" in plans[choice].describe()


KNOWN = ("5.0", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0")  # to CUDA 12.6


@pytest.mark.parametrize(
    ("asked", "chosen", "remark"),
    [
        ("8.0;9.0a+PTX", ("8.0", "9.0a+PTX"), None),
        ("5.2 6.0 7.0 7.5 9.0+PTX", ("7.5", "9.0+PTX"), "left out, older than 7.5: 5.2 6.0 7.0"),
        ("Volta;Ampere", ("8.0", "8.6+PTX"), "left out, older than 7.5: 7.0"),
    ],
)
def test_asked_for_and_too_old_is_left_out(monkeypatch, asked, chosen, remark):
    """Containers set the variable for all packages."""
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    assert choose(KNOWN) == (chosen, ("architectures from: TORCH_CUDA_ARCH_LIST", *([remark] if remark else [])))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("6.1;7.0", r"TORCH_CUDA_ARCH_LIST is '6.1;7.0'; the kernels need compute capability 7.5 or later"),
        ("9.0;12.0+PTX", r"is '.*', but this CUDA toolkit cannot compile for 12.0\+PTX; it can for 5.0 .* 9.0\."),
    ],
)
def test_asked_for_and_impossible_is_an_error(monkeypatch, asked, message):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    with pytest.raises(BuildError, match=message):
        choose(KNOWN)


@pytest.mark.parametrize(
    ("gpus", "chosen", "remark"),
    [
        (("8.6",), ("8.6",), None),
        (("12.0",), ("9.0+PTX",), "cannot compile for 12.0; in its place PTX of 9.0,"),
        (("10.0", "12.0", "8.0", "9.0"), ("8.0", "9.0+PTX"), "cannot compile for 10.0 12.0; in its place PTX of 9.0,"),
        (("6.1", "8.6"), ("8.6",), "no kernels for compute capability 6.1: they need 7.5 or later"),
        (("7.0",), ("8.0", "9.0+PTX"), "no kernels for compute capability 7.0: they need 7.5 or later"),
    ],
)
def test_gpus_older_or_newer_than_the_kernels_or_the_toolkit(monkeypatch, gpus, chosen, remark):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr(architectures, "gpus_present", lambda: gpus)
    found, remarks = choose(KNOWN)
    assert found == chosen
    assert len(remarks) == 1 + (remark is not None)
    assert remark is None or remark in remarks[1]


def test_the_plan_says_what_the_toolkit_cannot_do(fake_toolkit, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit().parents[1]))
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cuda")
    monkeypatch.setattr(architectures, "gpus_present", lambda: ("12.0",))
    assert "PTX of 9.0, which the driver compiles" in make_plan().describe()


def test_without_a_toolkit_the_cpu_part_or_an_error(fake_toolkit, monkeypatch, tmp_path):
    broken = fake_toolkit(runtime=False)
    monkeypatch.setenv("CUDA_HOME", str(broken.parents[1]))
    made = make_plan()
    assert made.cuda is None
    assert "libcudart_static.a" in made.describe()
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cuda")
    with pytest.raises(BuildError, match=r"no usable CUDA toolkit was found: .*libcudart_static\.a is not in"):
        make_plan()


def test_a_missing_compiler_or_torch_is_named(fake_toolkit, monkeypatch):
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BuildError, match="torch is not installed where the build runs"):
        make_plan()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match="no C.. compiler"):
        make_plan()
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    with pytest.raises(BuildError, match="no-such-compiler not found"):
        make_plan()
    monkeypatch.setenv("RESNET_CUDA_BUILD", "none")
    assert make_plan().compiler is None  # needs neither


@pytest.mark.parametrize("version", ["2.9.1", "2.9.1+cu128", "1.13.1", "2.9.0a0+git12345"])
def test_a_torch_that_is_too_old_is_named_before_the_compiler_starts(fake_toolkit, monkeypatch, version):
    """2.9 has headers of a stable ABI, too, but not all that are needed."""
    monkeypatch.setattr(plan.importlib.metadata, "version", lambda name: version)
    with pytest.raises(BuildError) as error:
        make_plan()
    assert f"torch {version} at " in str(error.value)
    assert "needs torch 2.10 or later" in str(error.value)


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0+cpu", "2.10.0a0+git12345", "2.15.0", "3.0", "main"])
def test_a_torch_that_is_new_enough_is_taken(fake_toolkit, monkeypatch, version):
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cpu")
    monkeypatch.setattr(plan.importlib.metadata, "version", lambda name: version)
    assert make_plan().torch.version == version


def test_the_compilers_flags_are_part_of_the_plan(fake_toolkit, monkeypatch):
    monkeypatch.setenv("RESNET_CUDA_BUILD", "cpu")
    monkeypatch.setenv("CPPFLAGS", "-DA='x y'")
    monkeypatch.setenv("CXXFLAGS", "-O1  -g")
    monkeypatch.setenv("LDFLAGS", "-static-libstdc++")
    made = make_plan()
    assert (made.compile_flags, made.link_flags) == (("-DA=x y", "-O1", "-g"), ("-static-libstdc++",))
    assert "flags for C++ files: '-DA=x y' -O1 -g" in made.describe()
    monkeypatch.setenv("LDFLAGS", "'-lm")
    with pytest.raises(BuildError, match='LDFLAGS is "\'-lm": No closing quotation'):
        make_plan()


def test_a_compiler_of_several_words_compiles_for_nvcc_too(fake_toolkit, monkeypatch, tmp_path):
    """nvcc takes one file, without words behind it: of "ccache g++" it ran ccache alone."""
    launcher = tmp_path / "with space" / "launcher"
    launcher.parent.mkdir()
    launcher.write_text('#!/bin/sh\necho "launched $@"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(native, "BUILT", tmp_path / "built")
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit().parents[1]))
    assert "-ccbin" not in native.device_command(make_plan())
    monkeypatch.setenv("CXX", f"'{launcher}'")
    assert native.device_command(make_plan())[-2:] == ["-ccbin", str(launcher)]
    monkeypatch.setenv("CXX", f"'{launcher}' 'two words' -m64")
    option, script = native.device_command(make_plan())[-2:]
    assert option == "-ccbin"
    assert subprocess.run([script, "-c", "a b.cpp"], capture_output=True, text=True).stdout == (
        "launched two words -m64 -c a b.cpp\n"
    )
    assert native.device_command(make_plan())[-1] == script
    monkeypatch.setenv("CXX", f"'{launcher}' -m32")
    assert native.device_command(make_plan())[-1] != script  # so that ninja compiles anew
    monkeypatch.setenv("CXX", "'g++")
    with pytest.raises(BuildError, match='CXX is "\'g\\+\\+": No closing quotation'):
        make_plan()


@pytest.mark.parametrize(
    ("jobs", "options"), [(None, []), ("", []), ("1", ["-j", "1"]), (" 16 ", ["-j", "16"]), ("0", ["-j", "0"])]
)
def test_the_number_of_jobs(jobs, options, monkeypatch):
    monkeypatch.delenv("MAX_JOBS", raising=False)
    if jobs is not None:
        monkeypatch.setenv("MAX_JOBS", jobs)
    assert native.jobs() == options


@pytest.mark.parametrize("jobs", ["-1", "all", "2.5"])
def test_a_number_of_jobs_that_is_none_is_named(jobs, monkeypatch):
    monkeypatch.setenv("MAX_JOBS", jobs)
    with pytest.raises(BuildError, match=f"MAX_JOBS is '{jobs}'; allowed are whole numbers, such as 2"):
        native.jobs()


def test_the_ninja_file_has_every_source_once(fake_toolkit, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit().parents[1]))
    folder = tmp_path / "with space, $dollar: colon$ and both"
    folder.mkdir()
    outputs = native.write_ninja_file(make_plan(), folder, "1.2.3")
    module = f"_C{native.sysconfig.get_config_var('EXT_SUFFIX')}"
    assert set(outputs) == {module, "libresnet_cuda.so", "_cuda_kernels.so"}
    text = (folder / "build.ninja").read_text()
    compiled = [line for line in text.splitlines() if ": compile " in line]
    assert len(compiled) == len(set(compiled)) == len(native.cpu_sources()) + len(native.cuda_sources())
    for source in sorted(native.CSRC.rglob("*")):
        if source.suffix in (".cpp", ".cu"):
            assert any(str(source) in line for line in compiled), source
    assert "with$ space,$ $$dollar$:$ colon$$$ and$ both" in text
    assert 'RESNET_CUDA_VERSION "1.2.3"' in (folder / "build_facts.h").read_text()


@pytest.mark.parametrize(
    ("asked", "compiled"),
    [("8.0;9.0+PTX", True), ("9.0a", True), ("9.0", True), ("Hopper", True), ("8.0;10.0", False), ("12.0a", False)],
)
def test_files_for_one_architecture(fake_toolkit, monkeypatch, tmp_path, asked, compiled):
    """Compiled for it alone, where its GPUs are asked for; all other files for what was asked."""
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit(architectures=(75, 80, 90, 100, 120)).parents[1]))
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    native.write_ninja_file(make_plan(), tmp_path, "1.2.3")
    steps = (tmp_path / "build.ninja").read_text().split("\nbuild ")
    own = [step for step in steps if step.split("\n")[0].endswith("_sm90a.cu")]
    others = [step for step in steps if step.split("\n")[0].endswith(".cu") and step not in own]
    assert bool(own) == compiled and others
    assert all(step.count("-gencode") == 1 and "arch=compute_90a,code=sm_90a" in step for step in own)
    for flag in nvcc_flags(parse(asked)):
        assert all(flag in step for step in others)


@pytest.mark.parametrize("variable", ["NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS"])
def test_what_nvcc_reads_itself_is_seen_by_ninja(fake_toolkit, monkeypatch, tmp_path, variable):
    """Otherwise kernels are not compiled anew with other flags."""
    monkeypatch.setenv("CUDA_HOME", str(fake_toolkit().parents[1]))
    monkeypatch.setenv(variable, "-lineinfo --maxrregcount=32")
    native.write_ninja_file(make_plan(), tmp_path, "1.2.3")
    steps = (tmp_path / "build.ninja").read_text().split("\nbuild ")
    kernels = [step for step in steps if step.split("\n")[0].endswith(".cu")]
    assert kernels
    assert all(f"compiler = env '{variable}=-lineinfo --maxrregcount=32' /" in step for step in kernels)


def test_without_the_ninja_package(monkeypatch):
    """A ninja of the system alone cannot write the file."""
    from build_native import BuildError, native

    monkeypatch.setitem(sys.modules, "ninja", None)
    with pytest.raises(BuildError, match="the Python package ninja is missing .*pip install ninja"):
        native.find_ninja()


def test_sources_do_not_share_a_stem():
    for sources in (native.cpu_sources(), native.cuda_sources()):
        stems = [(path.parent, path.stem) for path in sources]
        assert len(stems) == len(set(stems))
    assert not any(path.name.endswith(native.CPU_ONLY) for path in native.cuda_sources())
    assert all(path.suffix == ".cpp" for path in native.cpu_sources())


def test_compile_flags_follow_from_the_table_of_instruction_sets():
    from helpers.instruction_sets import LEVELS

    from build_native import native

    assert tuple(native.INSTRUCTION_SETS) == LEVELS
    avx2 = ("-mavx2", "-mfma", "-mf16c")
    avx512 = (*avx2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
    flags = ((), avx2, avx512, (*avx512, "-mavx512bf16"))
    assert tuple(native.INSTRUCTION_SETS.values()) == flags
    compiled_for = {native._instruction_set(path) for path in native.cpu_sources()}
    assert compiled_for == set(flags) or not native.is_x86()


def test_features_are_asked_by_names_that_old_compilers_know():
    """GCC 10 and Clang 17 refuse "f16c": it has BIT(f16c) instead of HAS(f16c)."""
    table = (native.CSRC / "common/instruction_sets.h").read_text()
    asked = set(re.findall(r"\bHAS\((\w+)\)", re.sub(r"//.*", "", table)))
    of_gcc_10 = {"avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512bf16"}
    assert "avx2" in asked
    assert asked <= of_gcc_10


def test_another_processor_leaves_x86_files_out(monkeypatch):
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")
    names = {path.name for path in native.cpu_sources()}
    assert "deform_conv_portable.cpp" in names
    assert not any("avx" in name for name in names)
