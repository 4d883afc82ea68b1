"""Where the compiled part is missing: scripted, traced and ONNX files are made and run all the same."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from helpers.processes import PACKAGE, TESTS, run_python
from helpers.tiny_networks import tiny

CODE = """
import sys, warnings
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]
warnings.simplefilter("ignore")
import torch, resnet_cuda
from helpers.networks import levels_of, loss_of
from helpers.tiny_networks import tiny

assert resnet_cuda.backend() == "reference"
network, x = tiny().eval(), torch.randn(1, 3, 50, 70)
with torch.no_grad():
    expected = levels_of(network(x))
for module in (torch.jit.script(network), torch.jit.trace(network, x, strict=False), torch.jit.load("native.pt")):
    torch.testing.assert_close(levels_of(module(x)), expected, rtol=1e-3, atol=1e-4)
weight = module.body.conv1.weight
assert torch.autograd.grad(loss_of(module(x)), weight)[0].any()
try:
    import onnx
except ImportError:
    pass
else:
    torch.onnx.export(network, (x,), "x.onnx", dynamo=False, opset_version=19)
    assert [it.op_type for it in onnx.load("x.onnx").graph.node].count("DeformConv") == 1
"""


@pytest.mark.filterwarnings("ignore")
def test_everything_runs_on_the_reference(tmp_path, registered):
    package = tmp_path / "copy" / "resnet_cuda"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    torch.jit.save(torch.jit.script(tiny().eval()), tmp_path / "native.pt")
    (tmp_path / "run.py").write_text(CODE)
    path = os.pathsep.join([str(package.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = run_python(tmp_path / "run.py", path=path, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
