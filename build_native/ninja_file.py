"""Writes build.ninja."""

from __future__ import annotations

import shlex
from pathlib import Path


def _escape(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _command(words: list[str]) -> str:
    return shlex.join(words).replace("$", "$$")


class NinjaFile:
    """Collects compile and link steps; each step carries its own command."""

    def __init__(self) -> None:
        self._lines = [
            "rule compile",
            "  command = $compiler -MD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $in",
            "rule link",
            "  command = $linker -o $out $in $libraries",
            "  description = link $out",
        ]

    def compile(self, compiler: list[str], source: Path, folder: Path, base: Path) -> Path:
        """Adds the compilation of ``source``; its object's place below ``folder`` mirrors the source's below ``base``."""
        target = folder / source.relative_to(base).with_suffix(source.suffix + ".o")
        self._lines += [f"build {_escape(target)}: compile {_escape(source)}", f"  compiler = {_command(compiler)}"]
        return target

    def link(self, linker: list[str], objects: list[Path], libraries: list[str], target: Path) -> None:
        inputs = " ".join(_escape(path) for path in objects)
        self._lines += [
            f"build {_escape(target)}: link {inputs}",
            f"  linker = {_command(linker)}",
            f"  libraries = {_command(libraries)}",
        ]

    def write(self, path: Path) -> None:
        text = "\n".join(self._lines) + "\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
