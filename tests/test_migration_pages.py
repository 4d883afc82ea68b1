"""The code of docs/migration/*.md runs: each page's blocks in order, in a folder with the files that they name.

A block ``python needs=NAME`` runs where that library is, ``python before`` is the old code and runs nowhere. Weights
that the pages would download are those of random networks.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch

from resnet_cuda import resnet_fpn_backbone
from resnet_cuda.weights import sources
from resnet_cuda.weights.convert import convert_file

PAGES = Path(__file__).parent.parent / "docs" / "migration"
BLOCK = re.compile(r"^```python(?: (before|needs=(\S+)))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
YAML = """
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE:
    CONV_BODY: "R-50-FPN"
  RESNETS:
    BACKBONE_OUT_CHANNELS: 256
  RPN:
    USE_FPN: True
    ANCHOR_STRIDE: (4, 8, 16, 32, 64)
  ROI_HEADS:
    USE_FPN: True
  ROI_BOX_HEAD:
    POOLER_SCALES: (0.25, 0.125, 0.0625, 0.03125)
    FEATURE_EXTRACTOR: "FPN2MLPFeatureExtractor"
    PREDICTOR: "FPNPredictor"
"""
CHECKOUTS = {"detectron2": "RESNET_CUDA_TEST_DETECTRON2", "maskrcnn-benchmark": "RESNET_CUDA_TEST_MASKRCNN_BENCHMARK"}


def page_and_needs():
    for path in sorted(PAGES.glob("*.md")):
        needs = {need for _, need, _ in BLOCK.findall(path.read_text()) if need}
        yield pytest.param(path.stem, "", id=path.stem)
        for need in sorted(needs):
            yield pytest.param(path.stem, need, id=f"{path.stem}-with-{need}")


def skip_without(need):
    if need in CHECKOUTS:
        folder = os.environ.get(CHECKOUTS[need])
        if not folder:
            pytest.skip(f"set {CHECKOUTS[need]} to the folder of a checkout")
    elif need and importlib.util.find_spec({"mmdetection": "mmdet"}.get(need, need)) is None:
        pytest.skip(f"{need} is not installed")


def files_of(name):
    """The files that a page names, made of random networks."""
    text = (PAGES / f"{name}.md").read_text()
    Path("e2e_mask_rcnn_R_50_FPN_1x.yaml").write_text(YAML)
    if name == "torchvision":
        from torchvision.models.detection import maskrcnn_resnet50_fpn

        torch.save(maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict(), "my_detector.pth")
        return
    network = resnet_fpn_backbone(
        "resnet50d" if name == "timm" else "resnet50",
        dcn_stages=(False, True, True, True) if name == "mmdetection" else (False,) * 4,
    )
    source = network.body if name == "timm" else network
    for path in set(re.findall(r'"([\w.-]+\.(?:pth|pkl|safetensors))"', text)):
        convert_file(source, path, {"detectron": "caffe2"}.get(name, name))


@pytest.fixture
def no_downloads(monkeypatch):
    """torchvision's weights are random ones: for a detector those of a new one."""
    api = pytest.importorskip("torchvision.models._api")

    def state_of(member):
        from torchvision.models import detection, resnet50

        name = type(member).__name__
        if "MaskRCNN" in name:
            return detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
        return resnet50().state_dict()

    resolve = sources.resolve
    monkeypatch.setattr(api.WeightsEnum, "get_state_dict", lambda self, *_, **__: state_of(self))
    monkeypatch.setattr(
        sources,
        "resolve",
        lambda source, *rest, **options: (
            (state_of(source), str(source))
            if isinstance(source, api.WeightsEnum)
            else resolve(source, *rest, **options)
        ),
    )


@pytest.mark.parametrize(("name", "need"), list(page_and_needs()))
@pytest.mark.filterwarnings("ignore:load_weights")
def test_the_code_of_a_page_runs(name, need, tmp_path, monkeypatch, no_downloads, capsys):
    """All blocks that need nothing beside this package or, with ``need``, those that need it and the others before."""
    skip_without(need)
    if need in CHECKOUTS:
        monkeypatch.syspath_prepend(os.environ[CHECKOUTS[need]])
    monkeypatch.chdir(tmp_path)
    files_of(name)
    ran, space = 0, {}
    for kind, needed, code in BLOCK.findall((PAGES / f"{name}.md").read_text()):
        if kind == "before" or (needed or "") != need:
            continue
        exec(compile(code, f"{name}.md", "exec"), space)
        ran += 1
    assert ran or not need
    if not need:
        assert re.search(r"  loaded +\d{3} ", capsys.readouterr().out)
