"""What wheels, editable installs and source distributions hold, whatever was built in the checkout before."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from helpers.processes import PACKAGE, run_python

import resnet_cuda
from resnet_cuda import _extension

sys.path.insert(0, str(Path(__file__).parent))
import checkout as tree

pytest.importorskip("setuptools")
pytest.importorskip("ninja")
BUILD = "from build_native import backend\nbackend.build_{kind}('dist')"


@pytest.fixture
def checkout(tmp_path):
    return tree.copy(tmp_path / "with space" / "checkout")


@pytest.fixture
def compiler(tmp_path):
    return str(tree.stand_in(tmp_path / "compiler"))


def build(checkout, kind, **variables):
    """The archive that comes of it, and what was said."""
    (checkout / "dist").mkdir(exist_ok=True)
    before = set((checkout / "dist").iterdir())
    said = tree.run(checkout, BUILD.format(kind=kind), **variables)
    (archive,) = set((checkout / "dist").iterdir()) - before or before
    return archive, said


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def leave_behind(checkout):
    """What a build with a CUDA part, of another layout of the package, may have left in the checkout."""
    package = checkout / "resnet_cuda"
    for stale in (tree.CUDA, tree.CPP, tree.MODULE):
        (package / stale).write_text("stale")
    for name in ("lib", f"lib.linux-x86_64-cpython-{sys.version_info[0]}{sys.version_info[1]}"):
        folder = checkout / "build" / name / "resnet_cuda"
        folder.mkdir(parents=True)
        for stale in (tree.CUDA, tree.CPP, tree.MODULE, "moved_away.py"):
            (folder / stale).write_text("stale")


def test_a_wheel_holds_only_what_this_build_made(checkout, compiler):
    leave_behind(checkout)
    wheel, _ = build(checkout, "wheel", RESNET_CUDA_BUILD="cpu", CXX=compiler)
    names = names_in(wheel)
    with zipfile.ZipFile(wheel) as archive:
        for library in (tree.MODULE, tree.CPP):
            assert archive.read(f"resnet_cuda/{library}") == b"compiled\n"
    assert not {f"resnet_cuda/{tree.CUDA}", "resnet_cuda/moved_away.py"} & names
    assert "none-any" not in wheel.name


def test_a_wheel_without_a_compiled_part(checkout):
    leave_behind(checkout)
    wheel, said = build(checkout, "wheel", RESNET_CUDA_BUILD="none", PATH="/nowhere")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = names_in(wheel)
    assert not [name for name in names if name.endswith(".so") or "moved_away" in name]
    assert "nothing is compiled" in said
    sources = (tree.ROOT / "resnet_cuda").rglob("*.py")
    expected = {str(path.relative_to(tree.ROOT)) for path in sources} | {"resnet_cuda/py.typed"}
    assert {name for name in names if ".dist-info/" not in name} == expected
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        assert b"resnet-cuda = resnet_cuda.__main__:run" in archive.read(entry_points)


@pytest.mark.parametrize("repository", ["somebody/resnet_cuda", ""])
def test_the_urls_are_those_of_the_repository_that_builds_it(checkout, repository):
    variables = {"GITHUB_SERVER_URL": "https://code.example", "GITHUB_REPOSITORY": repository}
    wheel, _ = build(checkout, "wheel", RESNET_CUDA_BUILD="none", **variables)
    (metadata,) = [name for name in names_in(wheel) if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(metadata).decode().splitlines()
    urls = [line for line in lines if line.startswith("Project-URL: ")]
    assert len(urls) == (4 if repository else 0)
    assert not repository or "Project-URL: Issues, https://code.example/somebody/resnet_cuda/issues" in urls


def test_an_editable_install_without_a_compiled_part_after_one_with_it(checkout, compiler):
    package = checkout / "resnet_cuda"
    build(checkout, "editable", RESNET_CUDA_BUILD="cpu", CXX=compiler)
    assert (package / tree.MODULE).read_text() == "compiled\n"
    (package / tree.CUDA).write_text("stale")
    build(checkout, "editable", RESNET_CUDA_BUILD="cpu", CXX=compiler)
    assert not (package / tree.CUDA).exists()
    (package / tree.CUDA).write_text("stale")
    build(checkout, "editable", RESNET_CUDA_BUILD="none")
    assert not list(package.glob("*.so"))


FROM_ANOTHER_PLACE = """
import site, sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]  # of the install that tests it
sys.path = [folder for folder in sys.path if folder != sys.argv[2]]
site.addsitedir(sys.argv[1])
import resnet_cuda
print(resnet_cuda.__file__)
"""


def test_an_editable_install_is_found_from_the_folder_that_holds_the_clone(tmp_path):
    """There Python finds the clone first, a folder of the package's name without a package."""
    clone = tree.copy(tmp_path / "project" / "resnet_cuda")
    wheel, _ = build(clone, "editable", RESNET_CUDA_BUILD="none")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site-packages")
    arguments = ["-W", "ignore", "-c", FROM_ANOTHER_PLACE, tmp_path / "site-packages", tree.ROOT]
    done = run_python(*arguments, cwd=clone.parent)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == clone / "resnet_cuda" / "__init__.py"


def test_a_build_in_place_without_a_compiled_part_removes_the_old_one(checkout, compiler):
    leave_behind(checkout)
    in_place = "sys.argv = ['setup.py', 'build_ext', '--inplace']; import runpy; runpy.run_path('setup.py')"
    tree.run(checkout, in_place, RESNET_CUDA_BUILD="none")
    assert not list((checkout / "resnet_cuda").glob("*.so"))


def test_a_source_distribution_holds_what_a_build_needs_and_nothing_else(checkout, compiler, tmp_path):
    leave_behind(checkout)
    archive, _ = build(checkout, "sdist", PATH="/nowhere")
    with tarfile.open(archive) as file:
        names = {member.name.split("/", 1)[1] for member in file.getmembers() if member.isfile()}
        file.extractall(tmp_path / "unpacked")
    folders = ("csrc", "build_native", "resnet_cuda")
    expected = {
        str(path.relative_to(checkout))
        for folder in folders
        for path in (checkout / folder).rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc")
    }
    expected |= {"LICENSE", "README.md", "CHANGELOG.md", "MANIFEST.in", "pyproject.toml"}
    expected |= {"setup.py", "setup.cfg", "PKG-INFO"}
    assert {name for name in names if ".egg-info/" not in name} == expected

    (source,) = (tmp_path / "unpacked").iterdir()
    from_it, _ = build(source, "wheel", RESNET_CUDA_BUILD="cpu", CXX=compiler)
    from_checkout, _ = build(checkout, "wheel", RESNET_CUDA_BUILD="cpu", CXX=compiler)
    assert names_in(from_it) == {name for name in names_in(from_checkout) if not name.endswith(".tar.gz")}


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_torch_is_asked_for_only_to_compile(checkout, kind):
    code = f"from build_native import backend\nprint(backend.get_requires_for_build_{kind}())"
    assert "torch>=2.10" in tree.run(checkout, code, RESNET_CUDA_BUILD="cpu")
    for other in ("torch", "ninja", "pybind11"):
        assert other not in tree.run(checkout, code, RESNET_CUDA_BUILD="none")


def test_the_compilers_flags_are_read(checkout, compiler):
    flags = {
        "CXXFLAGS": "-O1 '-DQUOTED=\"a b\"'",
        "CPPFLAGS": "-DFIRST",
        "LDFLAGS": "-Wl,--as-needed -static-libstdc++",
    }
    build(checkout, "wheel", RESNET_CUDA_BUILD="cpu", CXX=compiler, **flags)
    commands = tree.commands(compiler)
    compiling = [command for command in commands if " -c " in command]
    linking = [command for command in commands if "-shared" in command]
    assert compiling
    assert all('-DFIRST -O1 -DQUOTED="a b"' in command for command in compiling)
    assert all(command.index("-O3") < command.index("-O1") for command in compiling)
    assert linking
    assert all("-Wl,--as-needed -static-libstdc++" in command for command in linking)
    with pytest.raises(RuntimeError, match=r"CXXFLAGS is .* No closing quotation"):
        build(checkout, "wheel", RESNET_CUDA_BUILD="cpu", CXX=compiler, CXXFLAGS="'-O1")


@pytest.mark.parametrize("flags", ["-ffast-math", "-Ofast", "-funsafe-math-optimizations -ffinite-math-only"])
def test_arithmetic_is_strict_whatever_the_flags(checkout, compiler, flags):
    """Some environments set -ffast-math for all packages; NaN offsets would be sampled anywhere."""
    variables = {"CXX": f"{compiler} {flags}", "CXXFLAGS": flags, "LDFLAGS": f"{flags} -Wl,-O1"}
    build(checkout, "wheel", RESNET_CUDA_BUILD="cpu", **variables)
    compiling = [command for command in tree.commands(compiler) if " -c " in command]
    linking = [command for command in tree.commands(compiler) if "-shared" in command]
    assert compiling
    assert linking
    assert all(command.rindex(flags) < command.index("-fno-fast-math") for command in compiling)
    # To gcc before 13 they would be a reason to round small numbers to 0 in the whole process.
    assert all("-Wl,-O1" in command and not re.search("fast|unsafe", command) for command in linking)
    if shutil.which("g++") is None:
        pytest.skip("there is no g++ to ask")
    options = [word for word in compiling[0].split() if word.startswith(("-f", "-O"))]
    macros = subprocess.run(
        ["g++", *options, "-dM", "-E", "-x", "c++", "/dev/null"], capture_output=True, text=True, check=True
    ).stdout
    assert "#define __FINITE_MATH_ONLY__ 0" in macros
    assert not re.findall(r"__(?:FAST_MATH|ASSOCIATIVE_MATH|RECIPROCAL_MATH|NO_SIGNED_ZEROS)__", macros)


def test_torch_headers_do_not_stand_before_pybind11s(checkout, compiler):
    """torch's include folder has pybind11 headers of its own, which up to 2.12 refuse the stable ABI."""
    build(checkout, "wheel", RESNET_CUDA_BUILD="cpu", CXX=compiler)
    commands = tree.commands(compiler)
    (bindings,) = [command for command in commands if command.count("bindings.cpp") and " -c " in command]
    assert "torch/include" not in bindings


def test_uv_builds_anew_after_every_change_that_matters():
    """By default it looks at pyproject.toml and setup.py alone, and `uv sync` keeps what it once built."""
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    keys = tomllib.loads((tree.ROOT / "pyproject.toml").read_text())["tool"]["uv"]["cache-keys"]
    covered = {path for key in keys if "file" in key for path in tree.ROOT.glob(key["file"]) if path.is_file()}
    sources = {tree.ROOT / "pyproject.toml", tree.ROOT / "setup.py"}
    for folder, kinds in (("build_native", "*.py"), ("csrc", "*"), ("resnet_cuda", "*.py")):
        sources |= {path for path in (tree.ROOT / folder).rglob(kinds) if path.is_file()}
    assert covered == sources
    table = (tree.ROOT / "docs" / "build.md").read_text().partition("## Options of the build")[2].partition("\n## ")[0]
    named = re.findall(r"`([A-Z_]+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    assert {key["env"] for key in keys if "env" in key} == set(named) - {"MAX_JOBS"}


def test_the_version_is_written_once():
    module = ast.parse((PACKAGE / "_version.py").read_text())
    (assigned,) = (ast.literal_eval(node.value) for node in module.body if isinstance(node, ast.Assign))
    assert resnet_cuda.__version__ == assigned
    if _extension.CPU_LOADED:
        assert _extension.build_info()["version"] == assigned
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # from a checkout that is not installed
        assert importlib.metadata.version("resnet_cuda") == assigned
    # Nowhere else: the version in the metadata is dynamic.
    assert 'dynamic = ["version", ' in (tree.ROOT / "pyproject.toml").read_text()
