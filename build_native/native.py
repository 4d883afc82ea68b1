"""Carries a plan out: writes the ninja file and runs ninja."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sysconfig
from pathlib import Path

from build_native import commands, compiler_versions, host_compiler, systems
from build_native.architectures import architectures_of, nvcc_flags
from build_native.errors import BuildError
from build_native.folders import BUILT, CSRC
from build_native.ninja_file import NinjaFile, import_ninja, write_if_changed
from build_native.one_at_a_time import locked
from build_native.plan import Plan
from build_native.sources import digest
from build_native.unseen_changes import compile_anew_if_unseen

# The operators of _C without the module, for C++ programs: where there is no Python its symbols are missing.
CPP_LIBRARY = "libresnet_cuda.so"
# An unstable header fails at its #include under these.
STABLE_ABI = ("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY")
# Offsets and images may have NaN and infinity, and sums have their order. -ffast-math and the like take that away; some
# environments have it in CXXFLAGS for all packages.
STRICT_ARITHMETIC = (
    "-fno-fast-math",
    "-fno-unsafe-math-optimizations",
    "-fno-finite-math-only",
    "-fno-associative-math",
    "-fno-reciprocal-math",
    "-fsigned-zeros",
)
# With these gcc before 13 links crtfastmath.o, which rounds small numbers to 0 in the whole process that loads it.
_NOT_FOR_THE_LINKER = ("-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-mdaz-ftz")
NVCC_VARIABLES = ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")
# Nobody reads errno or the floating-point exception flags; without them a loop with a square root becomes vectors.
# After the strict ones, which switch both on.
UNREAD_FLAGS = ("-fno-math-errno", "-fno-trapping-math")


def _instruction_sets() -> dict[str, tuple[str, ...]]:
    """The compile flags of each instruction set by its name, from the table in ``common/instruction_sets.h``."""
    table = CSRC / "common/instruction_sets.h"
    text = table.read_text(encoding="utf-8")
    rows = re.findall(r"^  SET\((\w+), (\w+), (\w+), (.+)\)", text, re.M)
    if len(rows) != text.count(" SET(k") - 1:  # portable stands in the table of other processors, too
        raise BuildError(f"{table}: every SET(...) must be a line of its own, indented by two spaces")
    flags: dict[str, tuple[str, ...]] = {}
    for enumerator, _, extended, features in rows:
        inherited = () if extended == enumerator else flags[extended]
        flags[enumerator] = (*inherited, *(f"-m{feature}" for feature in re.findall(r"(?:HAS|BIT)\((\w+)\)", features)))
    return {name: flags[enumerator] for enumerator, name, _, _ in rows}


INSTRUCTION_SETS = _instruction_sets()
# Endings of CPU-only files.
CPU_ONLY = ("_cpu.cpp", *(f"_{name}.cpp" for name in INSTRUCTION_SETS))


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def cpu_sources() -> list[Path]:
    """The sources of ``_C``: by name, so that a new operator needs no change here."""
    sources = [CSRC / "registration.cpp", CSRC / "bindings.cpp", *CSRC.glob("*/*.cpp")]
    return sorted(path for path in sources if is_x86() or not _instruction_set(path))


def cuda_sources(csrc: Path = CSRC) -> list[Path]:
    """The CUDA library's sources: the kernels, and the checks and allocations that both devices share."""
    shared = [path for path in csrc.glob("*/*.cpp") if not path.name.endswith(CPU_ONLY)]
    return sorted([*shared, *csrc.glob("*/*.cu")])


def _instruction_set(path: Path) -> tuple[str, ...]:
    return next((flags for name, flags in INSTRUCTION_SETS.items() if path.name.endswith(f"_{name}.cpp")), ())


def _write_facts(path: Path, plan: Plan, version: str) -> None:
    """The header that bindings.cpp and built_from.cpp get their build facts from; left alone where nothing changed."""
    banner = _banner(plan.compiler)
    facts = {
        "RESNET_CUDA_VERSION": version,
        "RESNET_CUDA_BUILD_SOURCES": digest(CSRC),
        "RESNET_CUDA_BUILD_TORCH": plan.torch.version,
        "RESNET_CUDA_BUILD_CUDA": plan.cuda.version if plan.cuda else "none",
        "RESNET_CUDA_BUILD_ARCHS": " ".join(plan.architectures) or "none",
        "RESNET_CUDA_BUILD_COMPILER": re.sub(r'["\\]', "", banner),
    }
    text = "".join(f'#define {name} "{value}"\n' for name, value in facts.items())
    text += f"#define RESNET_CUDA_SOURCES_SYMBOL resnet_cuda_sources_{facts['RESNET_CUDA_BUILD_SOURCES']}\n"
    write_if_changed(path, text)


def _banner(compiler: tuple[str, ...]) -> str:
    """The first line that a compiler says of its version."""
    try:
        lines = commands.run([*compiler, "--version"]).stdout.splitlines()
    except OSError:  # a script without #!, which only a shell runs
        lines = []
    # Python reads it as UTF-8.
    return lines[0].encode("ascii", "replace").decode() if lines else "unknown"


def _own_flags() -> list[str]:
    flags = [*STABLE_ABI, f"-I{CSRC}"]
    return [*flags, "-DRESNET_CUDA_X86=1"] if is_x86() else flags


def _torch_include(plan: Plan) -> list[str]:
    return ["-isystem", str(plan.torch.root / "include")]


def device_command(plan: Plan) -> list[str]:
    """How a ``.cu`` file is compiled, without the architectures: the compile gate of the tests uses the same."""
    # nvcc warns about torch's headers at -Wextra; the host compiler checks the same files in the emulated build.
    command = [
        str(plan.cuda.nvcc),
        "-std=c++17",
        "-O3",
        "-Xcompiler",
        "-fPIC,-fvisibility=hidden",
        *_own_flags(),
        *_torch_include(plan),
    ]
    return [*command, "-DUSE_CUDA", "--expt-relaxed-constexpr", *host_compiler.ccbin(plan.compiler, BUILT)]


def _read_by_nvcc() -> list[str]:
    """The variables that nvcc reads by itself, as words of the command, where ninja sees that they have changed."""
    values = [f"{name}={os.environ[name]}" for name in NVCC_VARIABLES if os.environ.get(name)]
    return ["env", *values] if values else []


def write_ninja_file(plan: Plan, folder: Path, version: str) -> dict[str, Path]:
    """Writes ``folder``/build.ninja; gives the libraries it makes, by the name they get in the package."""
    import pybind11

    facts = folder / "build_facts.h"
    _write_facts(facts, plan, version)
    torch_include = _torch_include(plan)
    # How a function returns a vector wider than the registers depends on the instruction set; ours are all inlined.
    # A switch over an enumeration without a default must have every case.
    warnings = ["-Wall", "-Wextra", "-Werror=switch", "-Wno-psabi", *compiler_versions.quiet(plan.compiler)]
    host = [
        *plan.compiler,
        "-std=c++17",
        "-O3",
        "-fPIC",
        "-fvisibility=hidden",
        *warnings,
        *_own_flags(),
    ]
    # They come last, so that they overrule ours, but for the arithmetic. What nvcc is to add it reads itself, in
    # NVCC_APPEND_FLAGS.
    asked = [*plan.compile_flags, *STRICT_ARITHMETIC, *UNREAD_FLAGS]
    linker, linking = (
        [word for word in words if word not in _NOT_FOR_THE_LINKER]
        for words in (systems.linker(plan.compiler), plan.link_flags)
    )
    torch_libraries = systems.torch_libraries(plan.torch.root / "lib")
    # Of torch nothing: its include folder has pybind11 headers of its own, which up to 2.12 refuse the stable ABI.
    with_facts = ["-include", str(facts)]
    python = ["-isystem", sysconfig.get_path("include"), "-isystem", pybind11.get_include(), *with_facts]
    own = {"bindings.cpp": python, "built_from.cpp": with_facts}
    module = "_C" + sysconfig.get_config_var("EXT_SUFFIX")
    outputs = {name: folder / name for name in (module, CPP_LIBRARY)}

    file = NinjaFile()
    compiled = {}
    for source in cpu_sources():
        extra = own.get(source.name) or [*torch_include, *_instruction_set(source)]
        compiled[source.name] = file.compile([*host, *extra, *asked], source, folder / "cpu", CSRC)
    file.link(linker, list(compiled.values()), [*torch_libraries, *linking], outputs[module])
    operators = [path for name, path in compiled.items() if name != "bindings.cpp"]
    file.link(linker, operators, [*torch_libraries, *linking], outputs[CPP_LIBRARY])

    if plan.cuda:
        outputs["_cuda_kernels.so"] = folder / "_cuda_kernels.so"
        cuda = ["-DUSE_CUDA", "-isystem", str(plan.cuda.include)]
        shared = [*host, *torch_include, *cuda, *asked]
        nvcc = [*_read_by_nvcc(), *device_command(plan)]
        objects = []
        for source in cuda_sources():
            architectures = architectures_of(source.name, plan.architectures)
            if not architectures:  # the kernels of GPUs that were not asked for
                continue
            device = [*nvcc, *nvcc_flags(architectures)]
            command = device if source.suffix == ".cu" else [*shared, *own.get(source.name, ())]
            objects.append(file.compile(command, source, folder / "cuda", CSRC))
        runtime = [str(plan.cuda.runtime), "-ldl", "-lrt", "-lpthread"]
        file.link(linker, objects, [*torch_libraries, *runtime, *linking], outputs["_cuda_kernels.so"])
    file.write(folder / "build.ninja")
    return outputs


def find_ninja() -> str:
    return str(Path(import_ninja().BIN_DIR) / "ninja")


def jobs() -> list[str]:
    """Ninja's option for $MAX_JOBS; without it ninja runs as many as there are cores, and two more.

    Raises:
        BuildError: if it is not a number.
    """
    text = os.environ.get("MAX_JOBS", "").strip()
    if not text:
        return []
    if not text.isdecimal():
        raise BuildError(f"MAX_JOBS is {text!r}; allowed are whole numbers, such as 2")
    return ["-j", text]


def build(plan: Plan, version: str) -> dict[str, Path]:
    """Compiles and links according to the plan; only files that have changed since the last build.

    Returns:
        The libraries by their names in the package.

    Raises:
        BuildError: where a compiler cannot be used, or fails.
    """
    compiler_versions.check(plan.compiler)
    if plan.cuda:
        host_compiler.check(device_command(plan))
    tag = re.sub(r"[^\w.]+", "-", f"{sysconfig.get_config_var('SOABI')}-torch{plan.torch.version}")
    folder = BUILT / tag
    folder.mkdir(parents=True, exist_ok=True)
    # Not -C: relative paths in CXX, CXXFLAGS and the like are from here.
    command = [find_ninja(), "-f", str(folder / "build.ninja"), *jobs()]
    with locked(folder):
        outputs = write_ninja_file(plan, folder, version)
        compile_anew_if_unseen(folder, CSRC)
        if subprocess.run(command).returncode != 0:
            raise BuildError("the compiler failed, see above (with pip: add -v)")
    return outputs
