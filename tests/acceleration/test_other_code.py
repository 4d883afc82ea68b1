"""Accelerated networks copied, pickled, compiled, traced, optimized, in DistributedDataParallel, under autocast."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from helpers.accelerated import image, randomised, results
from helpers.networks import one_process_group
from torch import nn

import resnet_cuda
from resnet_cuda.acceleration import accelerate, restore

pytest.importorskip("torchvision")
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.misc import Conv2dNormActivation


def test_tensors_are_shared_and_written_to_by_both():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    accelerate(model)
    before = model(image())
    model.layer1[0].bn1.running_mean.add_(1)
    changed = model(image())
    assert (before - changed).abs().max() > 1e-3
    torch.testing.assert_close(restore(model)(image()), changed)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_are_accelerated_and_restored(how):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    types = [type(it) for it in model.modules()]
    accelerate(model)
    other = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert [type(it) for it in other.modules()] == [type(it) for it in model.modules()] != types
    torch.testing.assert_close(other(image()), model(image()))
    assert restore(other) is other
    assert [type(it) for it in other.modules()] == types


def test_compiled():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).eval()
    x = image().float()
    expected = model(x).detach()
    accelerate(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = compiled(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert model.layer1[0].conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
def test_symbolic_trace(norm):
    model = resnet18(num_classes=7, norm_layer=norm)
    model.conv1 = nn.Sequential(Conv2dNormActivation(3, 8, norm_layer=norm), nn.Conv2d(8, 64, 3))
    model = randomised(model).double().eval()
    expected = model(image())
    accelerate(model)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(image()), expected)


def test_data_parallel(tmp_path):
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double()
    expected = results(model, image())
    with one_process_group(tmp_path):
        parallel = nn.parallel.DistributedDataParallel(model)
        found = accelerate(parallel)
        assert "module.layer1.0" in found.replaced
        gradients = results(parallel, image())
    torch.testing.assert_close({name.removeprefix("module."): it for name, it in gradients.items()}, expected)


def test_optimized_afterwards():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).double().eval()
    expected = model(image()).detach()
    accelerate(model)
    optimized = resnet_cuda.optimize_for_inference(model)
    assert len(optimized.optimization_report.folded) == 20 and "layer1" in optimized.optimization_report.fused
    torch.testing.assert_close(optimized(image()), expected)


def test_sixteen_bit_activations_stay_so_under_autocast():
    model = randomised(resnet18(norm_layer=FrozenBatchNorm2d)).eval()
    x = image().float()
    exact = model(x).detach()
    accelerate(model)
    dtypes = []
    model.layer1[0].register_forward_hook(lambda module, arguments, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    assert dtypes == [torch.bfloat16]
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.05 * exact.abs().max().item())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["network", "frozen", "layer"])
def test_scripting_says_what_the_troubleshooting_page_quotes(kind):
    page = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text()
    (heading,) = [line for line in page.splitlines() if line.startswith("### ") and "`torch.jit.script`" in line]
    _, *messages = re.findall(r"`([^`]+)`", heading)
    if kind == "layer":
        model = nn.Sequential(Conv2dNormActivation(3, 4, 3)).eval()
    else:
        model = resnet18(norm_layer=FrozenBatchNorm2d if kind == "frozen" else None).eval()
    found = accelerate(model)
    with pytest.raises(Exception, match="|".join(map(re.escape, messages))):
        torch.jit.script(model)
    found.undo()
    torch.jit.script(model)
