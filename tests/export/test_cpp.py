"""The C++ program of docs/deployment.md, in which there is no Python, runs networks with this package's operators."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.networks import randomise
from helpers.tiny_networks import tiny

import resnet_cuda

PAGE = Path(__file__).resolve().parents[2] / "docs/deployment.md"
LIBRARY = Path(resnet_cuda.__file__).parent / "libresnet_cuda.so"

pytestmark = [
    pytest.mark.skipif(not PAGE.exists(), reason="the package alone is being tested"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++"),
    pytest.mark.skipif(not LIBRARY.exists(), reason="the package has no compiled part"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The page's program, compiled by the page's command."""
    folder = tmp_path_factory.mktemp("cpp")
    source, command = re.search(
        r"## C\+\+\n.*?```cpp\n(.*?)```\n\n```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S
    ).groups()
    (folder / "run.cpp").write_text(source)
    command = command.replace("\\\n", "").replace("$LIBTORCH", shlex.quote(str(Path(torch.__file__).parent)))
    done = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=200)


def scripted(network, images):
    return torch.jit.script(network)


def traced_copy(network, images):
    return torch.jit.trace(resnet_cuda.optimize_for_inference(network), images, strict=False)


@pytest.mark.parametrize("dcn", [False, True], ids=["plain", "deformable"])
@pytest.mark.parametrize("deployed", [scripted, traced_copy])
def test_a_program_without_a_python_runs_the_network(deployed, dcn, program, native, tmp_path):
    network = randomise(tiny(dcn)).eval()
    images = torch.ones(1, 3, 96, 128)
    with torch.no_grad():
        expected = {name: level.mean().item() for name, level in network(images).items()}
        torch.jit.save(deployed(network, images), tmp_path / "network.pt")
    done = run(program, LIBRARY, tmp_path / "network.pt")
    assert done.returncode == 0, done.stderr
    assert {name: float(mean) for name, mean in map(str.split, done.stdout.splitlines())} == pytest.approx(
        expected, rel=1e-3, abs=1e-5
    )


def test_without_the_library_the_operator_is_unknown(program, native, tmp_path):
    torch.jit.save(torch.jit.script(tiny(True).eval()), tmp_path / "network.pt")
    (other,) = (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*")
    done = run(program, other, tmp_path / "network.pt")
    assert done.returncode != 0
    assert "Unknown builtin op: resnet_cuda::" in done.stderr
