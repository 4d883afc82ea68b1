"""The code of docs/migration/*.md runs: each page's blocks in order, in a folder with the files that they name.

Their marks are those of :mod:`helpers.pages`. Weights that the pages would download are those of random networks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from helpers.pages import CHECKOUTS, DOCS, blocks_of, weight_files_of, why_missing

from resnet_cuda import resnet_fpn_backbone
from resnet_cuda.weights import sources
from resnet_cuda.weights.convert import convert_file

PAGES = DOCS / "migration"
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


def page_and_needs():
    for path in sorted(PAGES.glob("*.md")):
        needs = {block.needs for block in blocks_of(path)} - {""}
        yield pytest.param(path.stem, "", id=path.stem)
        for need in sorted(needs):
            yield pytest.param(path.stem, need, id=f"{path.stem}-with-{need}")


def files_of(name):
    """The files that a page names, made of random networks."""
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
    for path in weight_files_of(PAGES / f"{name}.md"):
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
    if why_missing(need) is not None:
        pytest.skip(why_missing(need))
    if need in CHECKOUTS:
        monkeypatch.syspath_prepend(os.environ[CHECKOUTS[need]])
    monkeypatch.chdir(tmp_path)
    files_of(name)
    ran, space = 0, {}
    for block in blocks_of(PAGES / f"{name}.md"):
        if "before" in block.marks or block.needs != need:
            continue
        block.run(space, f"{name}.md")
        ran += 1
    assert ran or not need
    if not need:
        assert re.search(r"  loaded +\d{3} ", capsys.readouterr().out)
