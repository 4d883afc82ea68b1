"""What a forward stores for its backward: no more than the operators need, each storage once."""

from __future__ import annotations

import contextlib
from collections import OrderedDict

import pytest
import torch
from helpers.networks import cfg_built, randomise
from helpers.tiny_networks import tiny
from torch import nn

from benchmarks import bench_memory
from benchmarks.activation_memory import needed, stored
from benchmarks.results import OURS, Settings, StoredRow
from resnet_cuda.layers import DFConv2d, FrozenBatchNorm2d
from resnet_cuda.torchvision_blocks import TorchvisionBottleneck

AUTOCAST = {"float32": None, "autocast": torch.bfloat16}
SIZE = {"float32": 4, "autocast": 2}


@pytest.fixture(params=AUTOCAST)
def precision(request):
    return request.param


def autocast(precision):
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast")


def forward_of(network, *arguments, precision="float32"):
    def forward():
        with autocast(precision):
            return network(*arguments)

    return forward


def net_allocated(forward):
    """What the allocator has given and not got back when ``forward`` returns, and the bytes of its results."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        outputs = forward()
    allocated = sum(event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    return allocated, outputs


def block(**options):
    """A bottleneck of 16 -> 8 -> 8 -> 16 channels whose shortcut is its input, or with deformable 3x3."""
    dcn = {"stage_with_dcn": options.pop("dcn", False), "with_modulated_dcn": True, "deformable_groups": 1}
    return randomise(TorchvisionBottleneck(16, 8, 16, 1, 1, 1, None, FrozenBatchNorm2d, dcn, **options))


def test_what_a_block_needs_counted_by_hand(precision, native):
    """Inputs of the three convolutions and the block's result, 16, 8, 8 and 16 channels; 27 for offsets and mask."""
    x = torch.randn(2, 16, 12, 10).requires_grad_()
    for dcn, channels in ((False, 48), (True, 48 + 27)):
        network = block(dcn=dcn)
        forward = forward_of(network, x, precision=precision)
        expected = 2 * 12 * 10 * channels * SIZE[precision]
        assert needed(forward, network, {"block": network}) == expected
        assert stored(forward, network).activations == expected


NETWORKS = {
    "bottlenecks": lambda: tiny(dcn=False, bottleneck=True),
    "basic blocks": lambda: tiny(dcn=False),
    "deformable": lambda: tiny(dcn=True, bottleneck=True),
    "deformable v1": lambda: tiny(dcn=True, modulated=False),
    "cfg": lambda: cfg_built(dcn=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_stores_what_its_operators_need_and_nothing_twice(name, precision, native):
    """All parameters learn: stem, max pooling, stages and pyramid."""
    network = NETWORKS[name]().train().requires_grad_()
    image = torch.randn(2, 3, 64, 96)
    ends = {f"layer{stage}": getattr(network.body, f"layer{stage}") for stage in range(1, 5)}
    forward = forward_of(network, image, precision=precision)
    assert stored(forward, network).activations == needed(forward, network, ends)


def test_the_count_is_the_allocators(precision, native):
    """What a forward has taken and not given back is what it stores, and those results that it does not store."""
    network = tiny(dcn=True, bottleneck=True).train().requires_grad_()
    forward = forward_of(network, torch.randn(1, 3, 64, 96), precision=precision)
    forward()
    allocated, outputs = net_allocated(forward)
    found = stored(forward, network)
    unstored = [level for name, level in outputs.items() if name != "3"]  # P5 is what the pooling reads
    image = 0 if precision == "autocast" else 3 * 64 * 96 * 4  # the caller's own, stored as it is
    assert allocated == found.activations + found.constants - image + sum(level.nbytes for level in unstored)


def test_a_storage_counts_once_and_whole():
    x = torch.randn(1, 8, 6, 6, requires_grad=True)

    def forward():
        large = x.exp()  # saves its result
        return (large[:, :4] * large[:, 4:]).sigmoid()  # the product saves two views of it, the sigmoid its result

    assert stored(forward, nn.Identity()).activations == (8 + 4) * 36 * 4


def test_what_no_result_needs_does_not_count():
    x = torch.randn(1, 8, 6, 6, requires_grad=True)

    def forward():
        x.sigmoid()
        return x.exp()

    assert stored(forward, nn.Identity()).activations == 8 * 36 * 4


def test_tensors_that_a_function_puts_on_its_context_count():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.hidden = [x * 2]
            return x * 3

        @staticmethod
        def backward(ctx, grad):
            return grad

    x = torch.randn(1, 8, 6, 6, requires_grad=True)
    assert stored(lambda: Hidden.apply(x), nn.Identity()).activations == 8 * 36 * 4


def test_parameters_and_their_copies_are_no_activations():
    layer = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    x = torch.randn(2, 8, 6, 6)
    assert stored(forward_of(layer, x), layer).constants == 0
    found = stored(forward_of(layer, x, precision="autocast"), layer)
    assert found.constants == layer.weight.numel() * 2
    assert found.activations == x.numel() * 2


def test_stages_have_what_they_save_first():
    first, second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid()), nn.Conv2d(4, 4, 1)
    network = nn.Sequential(OrderedDict(first=first, second=second))
    found = stored(forward_of(network, torch.randn(1, 4, 5, 5)), network, {"first": first, "second": second})
    assert found.by_stage == {"stem": 0, "first": 2 * 400, "second": 0}  # whose input the sigmoid has saved


def test_ours_needs_2_5_times_less_than_torchvision_from_c3_to_c5_under_autocast(monkeypatch, native):
    pytest.importorskip("torchvision")
    kept = {name: it for name, it in bench_memory.CANDIDATES.items() if not it[1]}
    monkeypatch.setattr(bench_memory, "CANDIDATES", kept)
    settings = Settings(torch.device("cpu"), torch.float32, True, 1, 1.0, True)
    problem = bench_memory.make_problem((1, 3, 64, 128), False, settings)
    row = StoredRow("", "", {}, {}, bench_memory.FLOOR)
    bench_memory.measure(problem, bench_memory.PRECISIONS["autocast bfloat16"], row)
    assert set(row.names) == {*kept, bench_memory.FLOOR}
    for found in (row.whole, row.stages):
        assert found[OURS].activations == found[bench_memory.FLOOR].activations
        assert found["torchvision"].activations > 2.5 * found[OURS].activations
    stages = row.whole[OURS].by_stage
    assert sum(stages[name] for name in bench_memory.STAGES) == row.stages[OURS].activations


@pytest.mark.parametrize("scripted", [False, True], ids=["traced", "scripted"])
def test_what_is_traced_does_not_depend_on_gradients(scripted, native):
    """The copy of the offsets is made in eager training only."""
    layer, x = DFConv2d(4, 4), torch.randn(1, 4, 6, 6)
    expected = layer(x)
    with contextlib.nullcontext() if scripted else torch.no_grad():
        other = torch.jit.script(layer) if scripted else torch.jit.trace(layer, (x,))
    torch.testing.assert_close(other(x), expected)
    assert "clone" not in str(other.graph)
