"""The parts of a page that a program writes: what stands between ``<!-- name -->`` and ``<!-- end of name -->``."""

from __future__ import annotations

import re
from pathlib import Path


def write_part(page: Path, name: str, text: str) -> None:
    """Replaces the part ``name`` of a Markdown page.

    Raises:
        ValueError: where the page has no such part.
    """
    marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"({re.escape(marks[0])}\n).*?({re.escape(marks[1])})", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise ValueError(f"{page} has no part {name!r}, between {marks[0]} and {marks[1]}")
    page.write_text(pattern.sub(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", old), encoding="utf-8")
