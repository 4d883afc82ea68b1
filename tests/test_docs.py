"""The pages of docs/: their code runs, their commands and links exist, what they quote is what the package says."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
import torch
import yaml
from helpers.pages import DOCS, ROOT, anchors_of, blocks_of, commands_of, links_of, weight_files_of, why_missing

import resnet_cuda
from resnet_cuda.weights.convert import convert_file

# Pages that have a test of their own: docs/migration, deployment.md, training.md.
GUIDES = [
    page
    for page in [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "tutorials").glob("*.md"))]
    if page.name not in ("deployment.md", "training.md")
]
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
WITH_CODE = [page for page in [*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "README.md"] if blocks_of(page)]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def files_of_pages(tmp_path, monkeypatch):
    """A folder of its own, with the files of weights that a page names, of a random network."""
    monkeypatch.chdir(tmp_path)

    def write(page: Path) -> None:
        for name in weight_files_of(page):
            network = resnet_cuda.resnet_fpn_backbone("resnet50", stride_in_1x1=True)
            convert_file(network, name, "detectron2", layout="detector")

    return write


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
@pytest.mark.filterwarnings("ignore")
def test_the_code_of_a_page_runs(page, files_of_pages, monkeypatch):
    """All blocks in order; those that need what is not here are left out, but never all of them."""
    files_of_pages(page)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *_, **__: None)  # for all tests behind it
    registries = [dict(resnet_cuda.resnet._TRANSFORMATION_MODULES), resnet_cuda.resnet._TRANSFORMATION_MODULES]
    space: dict = {"__name__": "page"}
    ran = 0
    try:
        for block in blocks_of(page):
            if why_missing(block.needs) is None:
                block.run(space, page.name)
                ran += 1
    finally:
        before, registry = registries
        for name in set(registry) - set(before):
            del registry[name]
    assert ran


def test_every_page_with_code_is_run():
    """A page in a new folder must not go unnoticed."""
    run = {*WITH_CODE, DOCS / "deployment.md", DOCS / "training.md", *(DOCS / "migration").glob("*.md")}
    assert {page for page in PAGES if blocks_of(page)} <= run


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "csrc" / "README.md"], ids=name_of)
def test_links_lead_somewhere(page):
    for target, anchor in links_of(page):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{name_of(page)}: {target}"
        if file.is_dir():
            continue
        if anchor:
            known = anchors_of(file)
            assert anchor in known, f"{name_of(page)}: {target}#{anchor} is none of {sorted(known)}"


def test_the_files_that_the_page_of_the_sources_names_exist():
    text = (ROOT / "csrc" / "README.md").read_text()
    names = {name.removeprefix("../") for name in re.findall(r"`([\w./-]+\.(?:h|cuh|cu|cpp|py))`", text)}
    assert len(names) > 50
    folders = ("csrc", "resnet_cuda", "tests", "build_native", "benchmarks")
    files = {f"/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*")}
    assert sorted(name for name in names if not any(path.endswith(f"/{name}") for path in files)) == []


def test_every_page_is_in_the_table_of_contents():
    listed = set()
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            lines = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith(":")]
            names = [line.partition("<")[2].removesuffix(">") or line for line in lines]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} == listed


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=name_of)
def test_commands_are_those_of_the_programs(page, monkeypatch):
    """Their subcommands and options exist; nothing is run."""
    from resnet_cuda import __main__ as program

    monkeypatch.setattr(program, "run_export", lambda chosen: 0)
    monkeypatch.setattr(program, "_convert", lambda chosen: 0)
    monkeypatch.setattr(program, "info", lambda as_json: "")
    for command in commands_of(page, "python -m resnet_cuda"):
        assert program.main(command) == 0, command
    monkeypatch.syspath_prepend(ROOT)
    for command in commands_of(page, "python -m benchmarks"):
        if "[part" not in command:
            assert __import__("benchmarks.__main__").__main__.parse(command)
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for target, *_ in commands_of(page, "make"):
        assert target in targets, f"make {target}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=name_of)
def test_commands_are_those_of_the_example(page, monkeypatch):
    commands = [command for command in commands_of(page, "examples/mask_rcnn.py") if command[-1:] != ["..."]]
    if not commands:
        return
    pytest.importorskip("torchvision")
    pytest.importorskip("pycocotools")
    monkeypatch.syspath_prepend(ROOT / "examples")
    spec = importlib.util.spec_from_file_location("mask_rcnn", ROOT / "examples" / "mask_rcnn.py")
    program = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(program)
    sys.path[:] = path
    for command in commands:
        program._parser().parse_args(command)


# What the troubleshooting page quotes.

OTHERS = {  # of Python, torch, CUDA, OpenVINO and the system's loader
    "undefined symbol",
    "cannot open shared object file",
    "no kernel image is available for execution on the device",
    "the provided PTX was compiled with an unsupported toolchain",
    "Deterministic behavior was enabled with",
    "CUBLAS_WORKSPACE_CONFIG",
    "Unknown builtin op: resnet_cuda::",
    "Could not find schema for resnet_cuda::",
    "No conversion rule found for operations: resnet_cuda::",
    "Guard failed",
    "_dispatch_library(): incompatible function arguments",
    "try blocks aren't supported",
    "Unknown type constructor",
    "import statements aren't supported",
    "cannot import name",
    "from 'resnet_cuda' (unknown location",
}


def said_by_the_package() -> str:
    """All string literals, those that are broken over lines joined, and what is filled in as "..."."""
    from build_native import plan

    texts = []
    for folder, kinds in (("resnet_cuda", "*.py"), ("build_native", "*.py"), ("csrc", "*.cpp")):
        for file in (ROOT / folder).rglob(kinds):
            text = re.sub(r'"\s*\n\s*f?"', "", file.read_text()).replace("{OLDEST_TORCH}", plan.OLDEST_TORCH)
            texts.append(re.sub(r"\{[^{}\n]*\}", "...", text))
    return "\n".join(texts)


def quoted(page: Path) -> list[str]:
    """Backquoted texts of more than one word in headings and in the first column of tables."""
    lines = page.read_text().splitlines()
    places = [line for line in lines if line.startswith("### ")]
    places += [line.split("|")[1] for line in lines if line.startswith("| ") and not line.startswith("| it says")]
    texts = [text for place in places for text in re.findall(r"`([^`]+)`", place)]
    return [text for text in texts if " " in text]


def test_troubleshooting_quotes_what_the_package_says():
    said = said_by_the_package()
    texts = quoted(DOCS / "troubleshooting.md")
    assert len(texts) >= 20
    for text in texts:
        for part in re.split(r"\s*\.\.\.[;,)]?\s*", text):
            part = part.strip(" ()")
            if len(part) >= 8 and part not in OTHERS:
                assert part in said, f"{part!r} of {text!r}"


# Facts that pages repeat.


def test_the_page_of_benchmarks_shows_what_the_records_say(monkeypatch):
    """The tables of the GPU run and their caption, word for word."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import tables
    from benchmarks.records import read

    page = (DOCS / "benchmarking.md").read_text()
    for part in tables.readme(read(ROOT / "benchmarks" / "results" / "2026-11-27-h200.jsonl")).split("\n\n"):
        assert part in page, part


def test_limits_are_those_of_the_build():
    from build_native import architectures

    page = (DOCS / "limitations.md").read_text()
    *first, last = architectures.SUPPORTED
    assert f"compute capability {', '.join(first)} and {last}" in page
    default = ";".join(architectures.DEFAULT)
    assert f"`{default}`" in (DOCS / "build.md").read_text()


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == resnet_cuda.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"]


def test_github_files():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert any(step.get("run") == "bash .ci/run" for step in steps)
    assert any(step.get("uses", "").startswith("pypa/cibuildwheel@") for step in steps)
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(templates) >= 3
    for template in templates:
        content = yaml.safe_load(template.read_text())
        if template.name == "config.yml":
            continue
        assert content["name"] and content["description"]
        for part in content["body"]:
            assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
            assert part["attributes"].get("label") or part["attributes"].get("value")


def test_pictures_are_small_and_whole():
    for picture in [*DOCS.rglob("*.png"), *DOCS.rglob("*.jpg")]:
        assert picture.stat().st_size < 300_000 or picture.name == "demo.png", picture
    for drawing in DOCS.rglob("*.svg"):
        xml.etree.ElementTree.parse(drawing)
