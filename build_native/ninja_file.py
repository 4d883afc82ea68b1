"""Writes build.ninja, by the ``ninja_syntax`` that every ninja wheel has."""

from __future__ import annotations

import io
import os
import re
import shlex
from pathlib import Path
from types import ModuleType

from build_native.errors import BuildError


def import_ninja() -> ModuleType:
    """The package of the ninja wheel, with its ``ninja_syntax``.

    Raises:
        BuildError: if it is not installed; the system's ninja alone has no ``ninja_syntax``.
    """
    try:
        import ninja
        import ninja.ninja_syntax
    except ImportError as error:
        raise BuildError(f"the Python package ninja is missing ({error}); pip install ninja") from None
    return ninja


def write_if_changed(path: Path, text: str) -> None:
    """Writes a file that the build reads; where nothing changed it stays, so that nothing is built again."""
    content = os.fsencode(text)  # it has names of files, which ninja and the compiler take as bytes
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def _path(path: Path) -> str:
    # ninja_syntax escapes spaces, colons and a $ before a space; it takes any other $ for a variable.
    return re.sub(r"\$(?! )", "$$", str(path))


def _command(words: list[str]) -> str:
    return shlex.join(words).replace("$", "$$")


class NinjaFile:
    """Collects compile and link steps; each step carries its own command."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._writer = import_ninja().ninja_syntax.Writer(self._text, width=1 << 20)
        compile_command = "$compiler -MD -MF $out.d -c $in -o $out"
        self._writer.rule("compile", compile_command, description="compile $in", depfile="$out.d", deps="gcc")
        self._writer.rule("link", "$linker -o $out $in $libraries", description="link $out")

    def compile(self, compiler: list[str], source: Path, folder: Path, base: Path) -> Path:
        """Adds the compilation of ``source``; its object lies in ``folder`` as the source lies in ``base``."""
        target = folder / source.relative_to(base).with_suffix(source.suffix + ".o")
        self._writer.build(_path(target), "compile", _path(source), variables={"compiler": _command(compiler)})
        return target

    def link(self, linker: list[str], objects: list[Path], libraries: list[str], target: Path) -> None:
        variables = {"linker": _command(linker), "libraries": _command(libraries)}
        self._writer.build(_path(target), "link", [_path(path) for path in objects], variables=variables)

    def write(self, path: Path) -> None:
        # Ninja's log lies beside the file, wherever ninja runs.
        self._writer.variable("builddir", str(path.parent).replace("$", "$$"))
        write_if_changed(path, self._text.getvalue())
