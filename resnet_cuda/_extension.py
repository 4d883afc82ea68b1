"""Loads the compiled libraries. If one is missing or broken, records why; the package then runs on the reference."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import sysconfig
import warnings
from pathlib import Path
from types import ModuleType

import torch

from resnet_cuda import _cuda_driver, _libraries
from resnet_cuda._version import __version__

_FOLDER = Path(__file__).parent
CUDA_LIBRARY = _FOLDER / "_cuda_kernels.so"
_BUILD_MODE = "RESNET_CUDA_BUILD unset or 'auto'"
_WITH_CUDA = "{} with a CUDA toolkit at hand and RESNET_CUDA_BUILD=cuda"
# pip keeps the wheel that it once built from a URL, whatever RESNET_CUDA_BUILD and TORCH_CUDA_ARCH_LIST say.
_REINSTALL = "pip install --force-reinstall --no-deps --no-cache-dir SOURCES"

CPU_LOADED: bool = False
CUDA_LOADED: bool = False
CPU_ERROR: str | None = None
CUDA_ERROR: str | None = None

_module: ModuleType | None = None


def _compiled_elsewhere() -> Path | None:
    """Another folder of this package on ``sys.path``, with a library for this Python."""
    for entry in sys.path:
        folder = Path(entry or ".") / "resnet_cuda"
        library = folder / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
        if library.is_file() and folder.resolve() != _FOLDER.resolve():
            return folder
    return None


def _why_missing() -> tuple[str, str]:
    """The message for a missing library: why there is none, and what to do."""
    if sys.platform == "win32":  # see build_native/systems.py
        return f"{_FOLDER} has no compiled part, which is not built on Windows", "Run on Linux, in WSL 2, say"
    parent = _FOLDER.parent
    is_checkout = (parent / "setup.py").is_file()
    compiled = _compiled_elsewhere()
    if compiled is not None:
        other = f"compile this one: pip install -e {parent}" if is_checkout else "take it off the path"
        return (
            f"{_FOLDER}, which has no compiled part, shadows the installed {compiled}, which has one",
            f"Run elsewhere than in {parent}, or {other}",
        )
    others = sorted(path.name for path in _FOLDER.glob("_C.*so"))
    if others:
        why = f"the extension in {_FOLDER} is for another Python ({', '.join(others)})"
    elif is_checkout:
        why = (
            f"the checkout at {parent} has no compiled part (never compiled, or installed with RESNET_CUDA_BUILD=none)"
        )
    else:
        why = f"{_FOLDER} was installed without its compiled part (RESNET_CUDA_BUILD=none)"
    if is_checkout:
        return why, f"Compile it, with a C++ compiler at hand: pip install -e {parent}, {_BUILD_MODE}"
    return why, f"Reinstall it from its sources with a C++ compiler at hand: {_REINSTALL}, {_BUILD_MODE}"


def install_again() -> str:
    """The command that compiles this package's own sources."""
    parent = _FOLDER.parent
    return f"pip install -e {parent}" if (parent / "setup.py").is_file() else _REINSTALL


def library() -> Path | None:
    """The file that ``import resnet_cuda._C`` loads."""
    found = importlib.util.find_spec("resnet_cuda._C")
    return None if found is None or found.origin is None else Path(found.origin)


def _why_of_other_sources(file: Path, differing: list[str]) -> str:
    """The message for a library whose operators are not those that these Python files call."""
    version = _libraries.version_of(file)
    return (
        f"{file} was built from other sources than these Python files"
        f"{'' if version in (None, __version__) else f', those of version {version}'}; its operators differ: "
        f"{', '.join(differing)}"
    )


def is_registered(operator: str) -> bool:
    """Whether ``torch.ops.resnet_cuda`` has it, from whichever library."""
    return bool(torch._C._jit_get_schemas_for_operator(f"resnet_cuda::{operator}"))


def _would_register_again(file: Path) -> bool:
    """Whether the operators are those of another file already: loading this one would end the process."""
    return any(map(is_registered, _libraries.SCHEMAS)) and not _libraries.is_loaded(file)


def _load_cpu() -> None:
    """Imports ``_C``, whose static initialisers register the schemas and the CPU kernels."""
    global _module, CPU_LOADED, CPU_ERROR
    file = library()
    if file is not None and _would_register_again(file):
        CPU_ERROR = f"{file} cannot be loaded: another copy of this package has registered its operators here"
        _warn_of_the_reference("Restart Python (in a notebook: its kernel), and import one copy only")
        return
    try:
        differing = [] if file is None else _libraries.operators_that_differ(file)
        # Of a file that has none of the schemas the loader says what it is.
        if not differing or len(differing) == len(_libraries.SCHEMAS):
            # torch is imported above: its libraries must be in the process before ours look for their symbols.
            module = importlib.import_module("resnet_cuda._C")
            module.cpu_capability()  # raises for a value of RESNET_CUDA_CPU_CAPABILITY that is none
            differing = [name for name in differing if not is_registered(name)]
        if not differing:
            _module, CPU_LOADED = module, True
            _warn_of_another_version(module.build_info()["version"])
            return
        CPU_ERROR = _why_of_other_sources(file or _FOLDER, differing)
        remedy = f"Compile these: {install_again()}, {_BUILD_MODE}"
    except ModuleNotFoundError as error:
        if error.name != "resnet_cuda._C":
            raise
        CPU_ERROR, remedy = _why_missing()
    except ImportError as error:
        CPU_ERROR = f"the compiled extension in {_FOLDER} cannot be loaded: {error}"
        remedy = (
            f"Reinstall it from its sources with a C++ compiler at hand: {install_again()}, {_BUILD_MODE}; "
            "torch must be 2.10 or later"
        )
    _warn_of_the_reference(remedy)


def _warn_of_the_reference(remedy: str) -> None:
    warnings.warn(
        f"resnet_cuda: {CPU_ERROR}. So everything runs on the slow PyTorch reference. {remedy}.", stacklevel=3
    )


def _warn_of_another_version(built: str) -> None:
    if built != __version__:
        warnings.warn(
            f"resnet_cuda: the compiled part in {_FOLDER} is of version {built}, the Python files of {__version__}. "
            f"Its operators are the same, its results may differ. Compile these: {install_again()}, {_BUILD_MODE}.",
            stacklevel=3,
        )


def _load_cuda() -> None:
    """Loads the CUDA kernels where the running torch has CUDA; a CPU-only torch lacks the symbols that they need."""
    global CUDA_LOADED, CUDA_ERROR
    if not CPU_LOADED:
        CUDA_ERROR = "the compiled extension is not loaded"
    elif torch.version.hip is not None:
        CUDA_ERROR = f"torch {torch.__version__} is a ROCm build; there are no kernels for AMD's GPUs"
    elif torch.version.cuda is None:
        CUDA_ERROR = f"torch {torch.__version__} is a CPU-only build"
    elif not CUDA_LIBRARY.exists():
        CUDA_ERROR = f"built without its CUDA part; run {_WITH_CUDA.format(install_again())}"
    elif not _is_of_this_build(CUDA_LIBRARY):
        CUDA_ERROR = (
            f"{CUDA_LIBRARY.name} was built from other sources than the compiled extension beside it; run "
            f"{_WITH_CUDA.format(install_again())}"
        )
    elif (reason := _why_the_driver_will_not_do()) is not None:
        CUDA_ERROR = reason
    elif _has_cuda_kernels() and not _libraries.is_loaded(CUDA_LIBRARY):
        CUDA_ERROR = f"another {CUDA_LIBRARY.name} than {CUDA_LIBRARY} is loaded in this process; restart Python"
    else:
        try:
            torch.ops.load_library(str(CUDA_LIBRARY))
        except OSError as error:
            CUDA_ERROR = f"{CUDA_LIBRARY.name} cannot be loaded: {error}"
            return
        CUDA_LOADED = True


def _has_cuda_kernels() -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key("resnet_cuda::deform_conv2d", "CUDA")


def _why_the_driver_will_not_do() -> str | None:
    """The message for a driver that is too old for the CUDA runtime in our library, though not for torch's own."""
    toolkit, driver = build_info().get("cuda", "none"), _cuda_driver.driver_version()
    if driver is None or not _cuda_driver.is_too_old(driver, toolkit):
        return None
    return (
        f"{CUDA_LIBRARY.name} was built with CUDA {toolkit}, the driver supports CUDA {driver[0]}.{driver[1]} at most; "
        f"update the driver, or run {install_again()} with a CUDA {driver[0]} toolkit at hand and "
        "RESNET_CUDA_BUILD=cuda"
    )


def _is_of_this_build(library: Path) -> bool:
    """Whether ``library`` was built from the sources of ``_C``: its kernels do not check what they are called with."""
    sources = build_info().get("sources")  # a library from before there was this entry has none
    return sources is None or _libraries.is_built_from(library, sources)


def compiled_version() -> str | None:
    """The version that the compiled part was built for, loaded or not; None where there is none, or it does not say."""
    if _module is not None:
        return build_info()["version"]
    file = library()
    return None if file is None else _libraries.version_of(file)


def build_info() -> dict[str, str]:
    """Versions that the extension was built with; empty where it is not loaded."""
    return {} if _module is None else dict(_module.build_info())


def cpu_capability() -> str | None:
    """Instruction set of the CPU kernels on this machine: "avx512_bf16", "avx512", "avx2" or "portable"; None where
    they are not loaded."""
    return None if _module is None else str(_module.cpu_capability())


_load_cpu()
_load_cuda()
