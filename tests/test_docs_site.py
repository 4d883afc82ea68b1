"""The site: every public name is on it, and it builds without a warning."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.pages import DOCS, ROOT

import resnet_cuda

# Modules whose __all__ is public.
MODULES = (
    "resnet_cuda",
    "resnet_cuda.acceleration",
    "resnet_cuda.config",
    "resnet_cuda.export",
    "resnet_cuda.inference",
    "resnet_cuda.layers",
    "resnet_cuda.ops",
    "resnet_cuda.reference",
    "resnet_cuda.resnet",
    "resnet_cuda.sampling",
    "resnet_cuda.weights",
)
DIRECTIVE = re.compile(r"^\.\. (?:auto|py:(?!currentmodule))(\w+):: ([\w.]+)$", re.MULTILINE)
INTEGRATIONS = sorted(
    path.stem for path in (ROOT / "resnet_cuda" / "integrations").glob("*.py") if not path.stem.startswith("_")
)


def documented() -> set[str]:
    """What the pages of docs/api ask Sphinx to document."""
    return {name for page in (DOCS / "api").glob("*.md") for _, name in DIRECTIVE.findall(page.read_text())}


def resolved(name: str) -> object:
    """The object of a dotted name."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def is_same(one: object, other: object) -> bool:
    return one is other or (isinstance(one, str) and one == other)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module):
    """By that name, or where it is the same object, by another."""
    names = documented()
    objects = [resolved(name) for name in names if not name.startswith("resnet_cuda.integrations.")]
    for name in importlib.import_module(module).__all__:
        found = getattr(importlib.import_module(module), name)
        assert f"{module}.{name}" in names or any(is_same(found, it) for it in objects), f"{module}.{name}"


@pytest.mark.parametrize("integration", INTEGRATIONS)
def test_every_public_name_of_an_integration_is_documented(integration):
    """By its source: the library need not be installed. What is imported is not its own."""
    source = (ROOT / "resnet_cuda" / "integrations" / f"{integration}.py").read_text()
    own = re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", source, re.MULTILINE)
    assert own
    for name in own:
        assert f"resnet_cuda.integrations.{integration}.{name}" in documented()


def test_everything_documented_is_there():
    for name in documented():
        if not name.startswith("resnet_cuda.integrations."):
            resolved(name)


def test_everything_documented_has_a_docstring():
    for name in documented():
        if name.startswith("resnet_cuda.integrations.") or name == "resnet_cuda.layers.Conv2d":
            continue
        found = resolved(name)
        if callable(found) or isinstance(found, type(resnet_cuda)):
            assert getattr(found, "__doc__", None), name


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'resnet_cuda[docs]'")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "cache")]
    result = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "site")], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr
    on_site = _names_on(tmp_path / "site")
    assert documented() <= on_site
    for page in (tmp_path / "site").rglob("*.html"):
        assert str(ROOT) not in page.read_text(), page.name


def _names_on(site: Path) -> set[str]:
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    items = getattr(inventory, "data", inventory)
    return {name for kind, names in items.items() if kind.startswith("py:") for name in names}


class TestRepositoryPages:
    """docs/_extensions/repository_pages.py"""

    @pytest.fixture(autouse=True)
    def _path(self, monkeypatch):
        monkeypatch.syspath_prepend(DOCS / "_extensions")

    def rewrite(self, text: str, base: Path, page: Path) -> str:
        import repository_pages

        return repository_pages.rewritten(text, base, page, DOCS)

    def test_a_link_to_a_file_that_has_a_page_goes_there(self):
        text = self.rewrite("[x](../csrc/README.md#glossary)", DOCS, DOCS / "build.md")
        assert text == "[x](kernels.md#glossary)"

    def test_a_link_from_a_file_of_the_repository_into_docs_is_relative_to_its_page(self):
        text = self.rewrite("[x](../docs/training.md)", ROOT / "examples", DOCS / "examples.md")
        assert text == "[x](training.md)"

    def test_a_link_to_a_file_without_a_page_becomes_its_name(self):
        text = self.rewrite("see [the build](../setup.py) there", DOCS, DOCS / "build.md")
        assert text == "see the build (`setup.py`) there"
        assert self.rewrite("[setup.py](../setup.py)", DOCS, DOCS / "build.md") == "`setup.py`"

    def test_code_and_addresses_stay(self):
        text = "```python\nx = f[0](../setup.py)\n```\n[a](https://example.org/x.md)"
        assert self.rewrite(text, DOCS, DOCS / "build.md") == text

    def test_a_folder_with_a_page_of_its_name(self):
        assert self.rewrite("[x](migration)", DOCS, DOCS / "training.md") == "[x](migration.md)"


def test_a_short_name_is_linked_where_one_documented_name_ends_so(monkeypatch):
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS / "_extensions")
    from short_names import only_match

    known = dict.fromkeys(["a.read", "a.b.write", "c.write"])
    assert only_match("read", known) == "a.read"
    assert only_match("b.write", known) == "a.b.write"
    assert only_match("write", known) is None
    assert only_match("ead", known) is None
