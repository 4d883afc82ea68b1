"""Builds the extension; everything else about the package is in pyproject.toml.

RESNET_CUDA_BUILD=auto|cpu|cuda|none chooses what is compiled, see README.md.
"""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # under build isolation the checkout is not on the path

from build_native import BuildError, build, make_plan  # noqa: E402


def version() -> str:
    """The version, read without importing the package."""
    module = ast.parse((ROOT / "resnet_cuda" / "_version.py").read_text())
    return next(ast.literal_eval(node.value) for node in module.body if isinstance(node, ast.Assign))


class BuildNative(build_ext):
    """Puts ``_C`` and, where there is a CUDA toolkit, ``_cuda_kernels.so`` into the package."""

    plan = None
    libraries_built: tuple[Path, ...] = ()

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
        folder = ROOT / "resnet_cuda"
        (folder / "_cuda_kernels.so").unlink(missing_ok=True)
        for path in self.libraries_built:
            # A new file and not new contents: a running process keeps the old library.
            temporary = folder / f".{path.name}.new"
            shutil.copy2(path, temporary)
            temporary.replace(folder / path.name)

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self.libraries_built] or super().get_outputs()


def main() -> None:
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
    setup(ext_modules=extensions, cmdclass={"build_ext": BuildNative})


main()
