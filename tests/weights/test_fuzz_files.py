"""10,000 damaged files over all formats: each gives content or one error, in 256 MB, without a crash.

Another seed, or more files, by RESNET_CUDA_FUZZ_SEED and RESNET_CUDA_FUZZ_FILES.
"""

from __future__ import annotations

import json
import os

import pytest
from helpers.processes import run_python
from helpers.weight_mutations import KINDS, mutations

SEED = int(os.environ.get("RESNET_CUDA_FUZZ_SEED", "0"))
FILES = int(os.environ.get("RESNET_CUDA_FUZZ_FILES", "2500"))  # of each format


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(tmp_path, kind):
    last = tmp_path / "last"
    done = run_python("-m", "helpers.read_limited", "fuzz", kind, str(SEED), str(FILES), last)
    assert done.returncode == 0, f"{done.stderr[-3000:]}\nat {last}: {last.read_bytes()!r}"
    results = json.loads(done.stdout)
    print(kind, results)
    assert results["content"] + results["errors"] == FILES
    # Both ways are gone: most changes are to be noticed, and some hit a number or a name.
    assert results["content"] > FILES / 100
    assert results["errors"] > FILES / 4


def test_the_same_seed_gives_the_same_files():
    for kind in KINDS:
        assert list(mutations(kind, 1, 20)) == list(mutations(kind, 1, 20)) != list(mutations(kind, 2, 20))
