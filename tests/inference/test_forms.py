"""An optimized model copied, saved, moved, compiled, exported, traced; and its inputs of every kind."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from helpers.networks import torchvision_style
from torch import nn

from resnet_cuda import optimize_for_inference
from resnet_cuda.inference.convolution import FoldedConv2d


def image(*shape, dtype=torch.float32):
    torch.manual_seed(5)
    return torch.randn(*(shape or (1, 3, 64, 96)), dtype=dtype)


@pytest.fixture(scope="module")
def model():
    return torchvision_style(dcn=True, name="resnet18").eval()


@pytest.fixture
def optimized(model):
    return optimize_for_inference(model)


def assert_same(found, expected, tolerance=1e-4):
    found, expected = (it if isinstance(it, dict) else dict(enumerate(it)) for it in (found, expected))
    assert len(found) == len(expected)
    for one, right in zip(found.values(), expected.values(), strict=True):
        torch.testing.assert_close(one, right, rtol=0, atol=tolerance * max(right.abs().max().item(), 1e-6))


def packed(module):
    return sum(len(it.packed) for it in module.modules() if isinstance(it, FoldedConv2d))


@torch.no_grad()
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies(optimized, how):
    expected = optimized(image())
    assert packed(optimized) > 0
    if how == "deepcopy":
        other = copy.deepcopy(optimized)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(optimized))
    else:
        file = io.BytesIO()
        torch.save(optimized, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert packed(other) == 0
    assert str(other.optimization_report) == str(optimized.optimization_report)
    assert_same(other(image()), expected, 0)


@torch.no_grad()
def test_state_dict_fits_another_optimized_copy_and_drops_what_was_packed(model, optimized):
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.01)
    other = optimize_for_inference(other)
    expected = optimized(image())
    assert (other(image())["0"] - expected["0"]).abs().max() > 1e-3
    other.load_state_dict(optimized.state_dict())
    assert_same(other(image()), expected, 0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("autocast", [False, True])
def test_weights_written_to_in_place(optimized, name, autocast):
    x = image()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        before = optimized(x)
        getattr(optimized.body.layer1[0].conv1, name).add_(0.5)
        after = optimized(x)
        fresh = copy.deepcopy(optimized)
        assert_same(after, fresh(x), 0)
    assert (before["0"].float() - after["0"].float()).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("layer", ["body.layer1.0.conv1", "fpn.inner_blocks.0.0"])
def test_another_parameter_at_the_same_address(optimized, layer, name):
    """As an allocator gives it where the old one has been freed; neither has been written to by torch."""
    conv = optimized.get_submodule(layer)
    memory = getattr(conv, name).numpy().copy(order="K")
    setattr(conv, name, nn.Parameter(torch.from_numpy(memory), False))
    before = optimized(image())
    memory += 0.5
    setattr(conv, name, nn.Parameter(torch.from_numpy(memory), False))
    after = optimized(image())
    assert_same(after, copy.deepcopy(optimized)(image()), 0)
    assert (before["0"] - after["0"]).abs().max() > 1e-3


def test_state_dict_loaded_in_inference_mode(model):
    """Into tensors that were made there, which count no versions."""
    with torch.inference_mode():
        optimized = optimize_for_inference(model).bfloat16().float()
        assert optimized.body.conv1.weight.is_inference()
        other = optimize_for_inference(model)
        optimized(image())
        optimized.load_state_dict(other.state_dict())
        assert_same(optimized(image()), other(image()), 0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_moved_to_another_dtype_and_back(optimized, dtype):
    expected = optimized(image())
    optimized.to(dtype)
    assert packed(optimized) == 0
    found = optimized(image().to(dtype))
    assert all(it.dtype == dtype for it in found.values())
    assert_same({name: it.float() for name, it in found.items()}, expected, 0.05)
    assert_same(optimized.float()(image()), expected, 1e-5 if dtype == torch.float64 else 0.05)


@torch.no_grad()
def test_wrong_dtype_is_torchs_error(optimized):
    with pytest.raises(RuntimeError, match=r"type|dtype"):
        optimized(image().double())


def test_parameters_need_no_gradient_and_one_reaches_the_input(model, optimized):
    assert not any(it.requires_grad for it in optimized.parameters())
    gradients = []
    model = copy.deepcopy(model).double()
    for network in (optimize_for_inference(model), model):
        x = image(dtype=torch.float64).requires_grad_()
        sum(it.square().mean() for it in network(x).values()).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_inference_mode(model, optimized):
    with torch.no_grad():
        expected = optimized(image())
    with torch.inference_mode():
        assert_same(optimized(image()), expected, 0)
        made_within = optimize_for_inference(model)
        assert_same(made_within(image()), expected, 0)
    with torch.no_grad():
        assert_same(made_within(image()), expected, 0)


@torch.no_grad()
def test_any_size_and_layout(model, optimized):
    for shape in ((1, 3, 64, 96), (2, 3, 33, 50), (1, 3, 70, 41), (3, 3, 32, 32), (1, 3, 64, 96)):
        x = image(*shape)
        assert_same(optimized(x), model(x))
        assert_same(optimized(x.contiguous(memory_format=torch.channels_last)), model(x))
    assert_same(optimized(image(1, 3, 96, 64).transpose(2, 3)), model(image(1, 3, 96, 64).transpose(2, 3)))
    found = optimized(image())
    assert all(it.is_contiguous(memory_format=torch.channels_last) for it in found.values())


@torch.no_grad()
def test_empty_batch(model, optimized):
    found, expected = (it(torch.zeros(0, 3, 64, 96)) for it in (optimized, model))
    assert {name: it.shape for name, it in found.items()} == {name: it.shape for name, it in expected.items()}


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(model, optimized, dtype):
    with torch.autocast("cpu", dtype):
        found, expected = optimized(image()), model(image())
    assert {name: it.dtype for name, it in found.items()} == {name: it.dtype for name, it in expected.items()}
    exact = model(image())
    assert_same({name: it.float() for name, it in found.items()}, exact, 0.05)


@torch.no_grad()
def test_unbatched_image():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    optimized = optimize_for_inference(model)
    x = image(3, 8, 9)
    torch.testing.assert_close(optimized(x), model(x[None])[0])


@torch.no_grad()
def test_compiled(model, optimized):
    compiled = torch.compile(optimized, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in ((2, 3, 128, 160), (3, 3, 192, 224)):
            assert_same(compiled(image(*shape)), model(image(*shape)))


@torch.no_grad()
def test_stage_compiled_by_inductor(model, optimized):
    x = image(1, 8, 17, 20)
    compiled = torch.compile(optimized.body.layer2, fullgraph=True)
    torch.testing.assert_close(compiled(x), model.body.layer2(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_exported_with_dynamic_sizes(model, optimized):
    sizes = {2: torch.export.Dim("height", min=65, max=256), 3: torch.export.Dim("width", min=65, max=256)}
    stem = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 7, 2, 3), torch.nn.MaxPool2d(3, 2, 1))
    try:
        torch.export.export(stem, (image(1, 3, 96, 128),), dynamic_shapes=(sizes,), strict=False)
    except torch._dynamo.exc.UserError:
        pytest.skip("this torch exports its own max_pool2d for odd or even sizes only")
    exported = torch.export.export(optimized, (image(1, 3, 96, 128),), dynamic_shapes=(sizes,), strict=False)
    assert_same(exported.module()(image(1, 3, 70, 201)), model(image(1, 3, 70, 201)))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_traced(model, optimized):
    traced = torch.jit.trace(optimized, image(), strict=False)
    assert_same(traced(image(1, 3, 96, 64)), model(image(1, 3, 96, 64)))


@torch.no_grad()
def test_symbolically_traced(model, optimized):
    graph = torch.fx.symbolic_trace(optimized)
    assert_same(graph(image(1, 3, 96, 64)), model(image(1, 3, 96, 64)))


@torch.no_grad()
def test_dispatch_modes_see_convolutions(model, optimized):
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    for network in (model, optimized):
        with FlopCounterMode(display=False) as counter:
            network(image())
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@torch.no_grad()
def test_vmap(model, optimized):
    x = image(2, 1, 3, 64, 64)
    found = torch.func.vmap(optimized)(x)
    expected = model(x[:, 0])
    assert_same({name: it[:, 0] for name, it in found.items()}, expected)


@torch.no_grad()
def test_nothing_that_somebody_holds_is_overwritten(model, optimized):
    """Levels that are returned, inputs, and what hooks keep."""
    x = image()
    kept = x.clone()
    levels = optimized(x)
    copies = {name: it.clone() for name, it in levels.items()}
    seen = []

    def keep(module, arguments, output):
        seen.extend((it, it.clone()) for it in (*arguments, output) if isinstance(it, torch.Tensor))

    for module in optimized.modules():
        module.register_forward_hook(keep)
    again = optimized(x)
    assert_same(again, copies)
    assert_same(levels, copies, 0)
    assert torch.equal(x, kept)
    assert len(seen) > 60
    assert all(torch.equal(tensor, copy) for tensor, copy in seen)


@torch.no_grad()
@pytest.mark.parametrize("layer", ["body.layer1.1.conv1", "body.layer2.1", "body.layer1.0", "fpn.inner_blocks.0"])
def test_one_hook_keeps_its_input(optimized, layer):
    expected = optimized(image())
    seen = []
    hook = optimized.get_submodule(layer).register_forward_hook(
        lambda module, arguments, output: seen.extend((it, it.clone()) for it in (*arguments, output))
    )
    assert_same(optimized(image()), expected)
    hook.remove()
    assert len(seen) == 2 and all(torch.equal(tensor, copied) for tensor, copied in seen)
