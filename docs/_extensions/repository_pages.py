"""Pages that are files of the repository, and links that leave docs/.

A page that is nothing but a link to a Markdown file, such as ``[Changelog](../CHANGELOG.md)``, becomes that file. Links
in it and in all other pages that lead out of docs/ go to the page that a file has become, or else name the file: the
site has no copy of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

FENCED = re.compile(r"(^(`{3,}).*?^\2$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
ONLY_A_LINK = re.compile(r"\[[^\]]*\]\(([^()\s#]+\.md)\)\s*")


def files_with_a_page(docs: Path) -> dict[Path, Path]:
    """The repository's files that are pages, and the pages' own files."""
    pages = {}
    for page in docs.glob("*.md"):
        only = ONLY_A_LINK.fullmatch(page.read_text(encoding="utf-8"))
        if only:
            pages[(docs / only[1]).resolve()] = page
    return pages


def rewritten(text: str, base: Path, page: Path, docs: Path) -> str:
    """``text``, whose links are relative to ``base``, as the text of the file ``page`` below ``docs``."""
    pages = files_with_a_page(docs)

    def target(match: re.Match) -> str:
        is_image, label, link, anchor = match[1], match[2], match[3], match[4] or ""
        path = (base / link).resolve()
        if "://" in link or link.startswith("mailto:") or not path.exists():
            return match[0]
        if path.is_dir() and path.with_suffix(".md").is_relative_to(docs) and path.with_suffix(".md").exists():
            path = path.with_suffix(".md")
        path = pages.get(path, path)
        if is_image or (path.is_relative_to(docs) and path.is_file()):
            return f"{is_image}[{label}]({os.path.relpath(path, page.parent)}{anchor})"
        name = f"`{path.relative_to(docs.parent)}`"
        return name if label.strip("`") in name else f"{label} ({name})"

    parts = FENCED.split(text)  # text, block, its fence, text, ...
    blocks = parts[1::3]
    texts = [LINK.sub(target, part) for part in parts[::3]]
    return "".join(part for pair in zip(texts, [*blocks, ""], strict=True) for part in pair)


def _read(app: Any, docname: str, source: list[str]) -> None:
    docs, page = Path(app.srcdir).resolve(), Path(app.env.doc2path(docname)).resolve()
    only = ONLY_A_LINK.fullmatch(source[0])
    file = (page.parent / only[1]).resolve() if only else page
    if only:
        app.env.note_dependency(str(file), docname=docname)
    source[0] = rewritten(file.read_text(encoding="utf-8") if only else source[0], file.parent, page, docs)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
