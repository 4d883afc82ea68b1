"""The program with what Python has on Windows, see tests/helpers/as_on_windows.py, and an output of few characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from helpers.processes import PACKAGE, TESTS

PROGRAM = TESTS.parent / "examples" / "mask_rcnn.py"
SMALL = "--backbone resnet18 --width 8 --fpn-channels 8 --head-channels 8 --min-size 48 --max-size 64 --proposals 20"
RUN = "--rois 8 --batch 1 --workers 1 --iterations 2 --output out"
# Open files are ASCII unless told otherwise, what is printed is cp1252, as in a file or a pipe on Windows.
ENVIRONMENT = {
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "cp1252",
    "OMP_NUM_THREADS": "1",
    "RESNET_CUDA_BACKEND": "reference",
}


def start(*arguments, folder):
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), str(TESTS)])}
    command = [sys.executable, str(TESTS / "helpers" / "as_on_windows.py"), str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode("cp1252")
    return done.stdout.decode("cp1252")


def test_train_with_a_worker_and_class_names_of_any_script(coco, tmp_path):
    images, annotations = coco
    content = json.loads(annotations.read_text(encoding="utf-8"))
    content["categories"][0]["name"] = "猫 Größe"
    annotations.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    data = ["--images", images, "--annotations", annotations]
    said = start("train", *data, *SMALL.split(), *RUN.split(), folder=tmp_path)
    assert "classes: bar, \\u732b Größe" in said
    assert "iteration 2/2" in said
    assert " MB " not in said  # which nobody tells there
    checkpoint = tmp_path / "out" / "checkpoint.pt"
    said = start("predict", "--checkpoint", checkpoint, "--threshold", "0", images / "image1.png", folder=tmp_path)
    assert "written: " in said
