"""Several processes report what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from detection.evaluation.evaluate import evaluate
from evaluation_rank import IMAGES, SKIPPED, dataset_and_model
from evaluation_samples import CPU, options_for

SCRIPT = Path(__file__).with_name("evaluation_rank.py")

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="this torch has no gloo"
)


def together(folder: Path, ranks: int, how: str) -> list[dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(SCRIPT), str(rank), str(ranks), str(folder), how] for rank in range(ranks)]
    processes = [
        subprocess.Popen(it, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for it in commands
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=100)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.parametrize("how", ["plain", "sharded"])
def test_two_ranks_report_what_one_does(tmp_path, how):
    """To the last bit, on both ranks; a sharded model is called equally often on both, or they would wait for ever."""
    dataset, model = dataset_and_model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = evaluate(model, dataset, CPU, options=options_for(), keep_results=True)
    assert (alone.images, alone.skipped_images) == (IMAGES - len(SKIPPED), len(SKIPPED))
    assert 0.01 < alone.metrics["segm"]["AP"] < 0.99
    first, second = together(tmp_path, 2, how)
    for part in (first, second):
        assert part["report"] == json.loads(json.dumps(alone.as_dict()))
        assert part["results"] == json.loads(json.dumps(alone.results))
    assert (first["calls"], second["calls"]) == ((5, 5) if how == "sharded" else (5, 2))
