"""What the tests of training share, also those that run in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detection.data.coco_dataset import CocoInstances
from detection.models.options import COINS
from detection.training.options import TrainOptions

import resnet_cuda

FOLDER = Path(__file__).resolve().parent
CPU = torch.device("cpu")
SIZES = {"width": 8, "fpn_channels": 8, "head_channels": 8, "proposals": 20, "rois": 8}
MODEL = replace(COINS, class_names=("bar", "square"), min_size=(48,), max_size=64, **SIZES)
OPTIONS = TrainOptions(iterations=6, learning_rate=1e-3, warmup=2, workers=0, save_every=3)

# By its path: several folders have a conftest.
_spec = importlib.util.spec_from_file_location("examples_conftest", FOLDER.parent / "conftest.py")
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
write_coco = _conftest.write_coco


def coco(folder: Path, kind: type[CocoInstances] = CocoInstances) -> CocoInstances:
    return kind(folder / "images", folder / "instances.json")


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_same_bits(actual: Any, expected: Any, name: str = "") -> None:
    """Also within mappings and sequences, of which torch makes a tuple a list."""
    assert type(actual) is type(expected) or {type(actual), type(expected)} == {list, tuple}, name
    if isinstance(expected, dict):
        assert list(actual) == list(expected), name
        for key, value in expected.items():
            assert_same_bits(actual[key], value, f"{name}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected), name
        for number, value in enumerate(expected):
            assert_same_bits(actual[number], value, f"{name}[{number}]")
    elif torch.is_tensor(expected):
        assert actual.dtype == expected.dtype and torch.equal(actual, expected), name
    else:
        assert actual == expected, name


def environment(**variables: str) -> dict[str, str]:
    """Of a process of the tests' own: one thread, the package that this process tests, and the example."""
    folders = [Path(resnet_cuda.__file__).parents[1], FOLDER.parents[2] / "examples"]
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}


def torchrun(script: str, *arguments: str | Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """``script`` of this folder on two ranks; all that they wrote is in ``stdout``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*command, str(FOLDER / script), *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # torchrun ends its ranks
            process.wait(40)
    return subprocess.CompletedProcess(command, process.returncode, output)
