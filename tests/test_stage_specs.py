"""One line in the table of depths is enough for every route that builds a backbone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import resnet_cuda

BUILD = """
import torch
from resnet_cuda import build_backbone, resnet, resnet_fpn_backbone
from resnet_cuda.config import get_cfg

def blocks(body):
    return [len(getattr(body, f"layer{stage}")) for stage in (1, 2, 3, 4) if hasattr(body, f"layer{stage}")]

with torch.device("meta"):
    for kind, last in (("C4", 3), ("C5", 4), ("FPN", 4), ("FPN-RETINANET", 4)):
        cfg = get_cfg()
        cfg.MODEL.BACKBONE.CONV_BODY = f"R-200-{kind}"
        for body in (resnet.ResNet(cfg), build_backbone(cfg).body):
            assert blocks(body) == [3, 24, 36, 3][:last], kind
    assert blocks(resnet_fpn_backbone("resnet200").body) == [3, 24, 36, 3]
"""


def test_resnet_200_is_one_line(tmp_path):
    source = Path(resnet_cuda.__file__).parent
    shutil.copytree(source, tmp_path / "resnet_cuda", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    table = tmp_path / "resnet_cuda" / "stage_specs.py"
    line = "    152: (3, 8, 36, 3),\n"
    assert line in table.read_text()
    table.write_text(table.read_text().replace(line, f"{line}    200: (3, 24, 36, 3),\n"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "RESNET_CUDA_BACKEND": "reference"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
