"""Markdown pages with code in them: their blocks, links and anchors, and the files that their code names.

The first line of a block of Python may have marks: ``needs=NAME`` runs where that library is (``compiler`` is a C++
compiler, ``cuda`` a GPU, ``download`` is left out), ``before`` is old code and runs nowhere, ``file=NAME`` is a file,
and others are for a page's own test.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

FENCED = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s#]*)(?:#([^()\s]*))?\)")
HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
WEIGHT_FILE = re.compile(r'"([\w.-]+\.(?:pth|pkl|safetensors))"')

CHECKOUTS = {"detectron2": "RESNET_CUDA_TEST_DETECTRON2", "maskrcnn-benchmark": "RESNET_CUDA_TEST_MASKRCNN_BENCHMARK"}
PACKAGES = {"mmdetection": "mmdet"}


@dataclass(frozen=True)
class Block:
    """A block of Python; ``needs`` is "" where it needs nothing beside this package."""

    code: str
    needs: str = ""
    marks: tuple[str, ...] = ()
    line: int = 1  #: of its first line of code in the page

    def run(self, space: dict, page: str) -> None:
        """In the names ``space``; tracebacks have the page's line numbers."""
        exec(compile("\n" * (self.line - 1) + self.code, page, "exec"), space)


def blocks_of(page: Path) -> list[Block]:
    found = []
    text = page.read_text()
    for match in FENCED.finditer(text):
        language, *marks = match[2].split() or [""]
        if language != "python":
            continue
        needs = [mark.removeprefix("needs=") for mark in marks if mark.startswith("needs=")]
        others = tuple(mark for mark in marks if not mark.startswith("needs="))
        line = text.count("\n", 0, match.start(3)) + 1
        found.append(Block(match[3], needs[0] if needs else "", others, line))
    return found


def why_missing(needs: str) -> str | None:
    """Why a block that needs this cannot run here, or None."""
    if needs == "":
        return None
    if needs == "download":
        return "it downloads weights"
    if needs == "cuda":
        return None if torch.cuda.is_available() else "this machine has no CUDA GPU that torch can use"
    if needs == "compiler":
        return None if shutil.which("g++") else "there is no g++"
    if needs in CHECKOUTS:
        variable = CHECKOUTS[needs]
        return None if os.environ.get(variable) else f"set {variable} to the folder of a checkout"
    return None if importlib.util.find_spec(PACKAGES.get(needs, needs)) else f"{needs} is not installed"


def weight_files_of(page: Path) -> set[str]:
    """The files of weights that a page's code reads from the current folder."""
    return {name for block in blocks_of(page) for name in WEIGHT_FILE.findall(block.code)}


def without_blocks(text: str) -> str:
    return FENCED.sub("", text)


def links_of(page: Path) -> list[tuple[str, str | None]]:
    """(target, anchor) of each link to a file; target is "" for the page itself."""
    text = re.sub(r"`[^`\n]*`", "", without_blocks(page.read_text()))
    return [(target, anchor) for target, anchor in LINK.findall(text) if "://" not in target]


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    anchors: set[str] = set()
    for heading in HEADING.findall(without_blocks(page.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 1
        unique = slug
        while unique in anchors:
            unique, number = f"{slug}-{number}", number + 1
        anchors.add(unique)
    return anchors


def commands_of(page: Path, program: str) -> list[list[str]]:
    """The arguments of every call of ``program`` in the page's blocks without a language; comments are left out."""
    found = []
    for _, language, block in FENCED.findall(page.read_text()):
        if language.strip():
            continue
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split("#")[0].split()
            words = program.split()
            for start in range(len(command) - len(words) + 1):
                if command[start : start + len(words)] == words:
                    found.append(command[start + len(words) :])
    return found
