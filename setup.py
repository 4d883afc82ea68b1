"""Builds the extension; everything else about the package is in pyproject.toml.

RESNET_CUDA_BUILD=auto|cpu|cuda|none chooses what is compiled, see docs/build.md.
"""

from __future__ import annotations

import ast
import os
import shutil
import sys
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# Known, and explained in pyproject.toml; setuptools' texts are longer than all that a build says.
warnings.filterwarnings("ignore", message=r"\s*(License classifiers are deprecated|Editable installation)")

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "resnet_cuda"
sys.path.insert(0, str(ROOT))  # under build isolation the checkout is not on the path

from build_native import BuildError, build, make_plan  # noqa: E402


def version() -> str:
    """The version, read without importing the package."""
    module = ast.parse((PACKAGE / "_version.py").read_text(encoding="utf-8"))
    return next(ast.literal_eval(node.value) for node in module.body if isinstance(node, ast.Assign))


def project_urls() -> dict[str, str]:
    """Of the repository on whose runner a workflow builds the package; elsewhere there are none."""
    server, repository = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    if not server or not repository:
        return {}
    url = f"{server}/{repository}"
    return {
        "Source": url,
        "Documentation": f"{url}/tree/main/docs",
        "Changelog": f"{url}/blob/main/CHANGELOG.md",
        "Issues": f"{url}/issues",
    }


def remove_compiled(folder: Path) -> None:
    """The libraries of an earlier build: a package may only have what was asked for this time."""
    for pattern in ("_C.*so", "_cuda_kernels.so", "libresnet_cuda.so"):
        for path in folder.glob(pattern):
            path.unlink()


class BuildPython(build_py):
    """Begins with nothing: in ``build/lib*`` what an earlier build left would be packed, compiled or not."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "resnet_cuda", ignore_errors=True)
        elif BuildNative.plan is None or BuildNative.plan.compiler is None:
            remove_compiled(PACKAGE)
        super().run()


class BuildNative(build_ext):
    """Puts ``_C``, ``libresnet_cuda.so`` and, where there is a CUDA toolkit, ``_cuda_kernels.so`` into the package."""

    plan = None
    libraries_built: tuple[Path, ...] = ()

    def run(self) -> None:
        if self.inplace and not self.extensions:
            remove_compiled(PACKAGE)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        folder = Path(self.get_ext_fullpath(ext.name)).parent
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outputs = build(self.plan, version())
        except BuildError as error:
            sys.exit(f"\nresnet_cuda: {error}\n")
        for name, path in outputs.items():
            shutil.copy2(path, folder / name)
        self.libraries_built = tuple(folder / name for name in outputs)

    def copy_extensions_to_source(self) -> None:
        """For an editable install: all the libraries, not only the extension module."""
        (PACKAGE / "_cuda_kernels.so").unlink(missing_ok=True)
        for path in self.libraries_built:
            # A new file and not new contents: a running process keeps the old library.
            temporary = PACKAGE / f".{path.name}.new"
            shutil.copy2(path, temporary)
            temporary.replace(PACKAGE / path.name)

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self.libraries_built] or super().get_outputs()


def main() -> None:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may have what the encoding lacks
    commands = set(sys.argv[1:])
    extensions = []
    if not commands & {"sdist", "egg_info", "--version", "--name", "clean"}:
        try:
            BuildNative.plan = make_plan()
        except BuildError as error:
            sys.exit(f"\nresnet_cuda: {error}\n")
        if commands & {"build_ext", "bdist_wheel", "editable_wheel", "install", "build", "develop"}:
            print(BuildNative.plan.describe(), flush=True)
        if BuildNative.plan.compiler is not None:
            extensions = [Extension("resnet_cuda._C", sources=[])]
    setup(
        ext_modules=extensions,
        cmdclass={"build_py": BuildPython, "build_ext": BuildNative},
        project_urls=project_urls(),
    )


main()
