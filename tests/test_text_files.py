"""Text files are read and written as UTF-8, not in the encoding of the system, which on Windows is another one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("resnet_cuda", "examples", "build_native", "benchmarks", "docs", "setup.py")


def without_encoding(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that open a file as text and do not say in which encoding."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
        if name not in ("open", "read_text", "write_text") or any(it.arg == "encoding" for it in call.keywords):
            continue
        module = call.func.value if isinstance(call.func, ast.Attribute) else None
        if isinstance(module, ast.Name) and module.id in ("os", "Image", "tarfile", "zipfile", "archive"):
            continue
        constants = [
            it.value for it in (*call.args, *(it.value for it in call.keywords)) if isinstance(it, ast.Constant)
        ]
        modes = [it for it in constants if isinstance(it, str) and set(it) <= set("rwaxb+")]
        if name != "open" or not any("b" in mode for mode in modes):
            yield call


@pytest.mark.parametrize("place", SHIPPED)
def test_every_text_file_is_opened_with_its_encoding(place):
    path = ROOT / place
    if not path.exists():
        pytest.skip("the package alone is being tested")
    found = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))
        for call in without_encoding(ast.parse(file.read_bytes()))
    ]
    assert not found, "name the encoding, utf-8"


@pytest.mark.parametrize("code", ["open(p)", "open(p, 'w')", "p.open()", "p.read_text()", "p.write_text('b')"])
def test_the_rule_finds_what_it_must(code):
    assert list(without_encoding(ast.parse(code)))


@pytest.mark.parametrize("code", ["open(p, 'rb')", "p.open('wb')", "os.open(p, 0)", "p.read_text(encoding='utf-8')"])
def test_the_rule_leaves_alone_what_is_right(code):
    assert not list(without_encoding(ast.parse(code)))
