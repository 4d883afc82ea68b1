"""torch.fx and torchvision's feature extraction: eager's values and gradients, names as in torchvision's network."""

from __future__ import annotations

import pickle

import pytest
import torch
from helpers.networks import gradients, levels_of, loss_of, narrow_cfg, randomise, torchvision_style
from helpers.tiny_networks import tiny
from torch import nn

from resnet_cuda import build_backbone, ops
from resnet_cuda.layers import DeformConv2d, FrozenBatchNorm2d

NETWORKS = {
    "plain": lambda: tiny(dcn=False),
    "v1": lambda: tiny(modulated=False),
    "v2": lambda: tiny(bottleneck=True),
    "bn": lambda: tiny(norm="bn"),
    "gn": lambda: tiny(norm="gn"),
    "resnet50d": lambda: torchvision_style(False, "resnet50d"),
    "cfg": lambda: randomise(build_backbone(narrow_cfg("R-50-FPN-RETINANET", BACKBONE_OUT_CHANNELS=8))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_symbolic_trace_gives_values_and_gradients(name, backend):
    network = NETWORKS[name]().train()
    graph = torch.fx.symbolic_trace(network)
    for shape in ((1, 3, 64, 64), (2, 3, 71, 45)):
        x = torch.randn(shape)
        if name != "bn" or len(x) > 1:
            torch.testing.assert_close(levels_of(graph(x)), levels_of(network(x)))
    loss_of(network(x)).backward()
    expected = gradients(network)
    loss_of(graph(x)).backward()
    torch.testing.assert_close(gradients(graph), expected)


def test_buffers_are_the_networks_own():
    network = tiny().eval()
    graph, x = torch.fx.symbolic_trace(network), torch.randn(1, 3, 64, 64)
    before = levels_of(graph(x))[0]
    network.body.bn1.bias.add_(1)
    after = levels_of(graph(x))
    assert not torch.equal(after[0], before)
    torch.testing.assert_close(after, levels_of(network(x)))


def test_a_graph_is_pickled_and_traced_again():
    network, x = tiny().eval(), torch.randn(1, 3, 50, 70)
    graph = pickle.loads(pickle.dumps(torch.fx.symbolic_trace(network)))
    again = torch.fx.symbolic_trace(graph)
    torch.testing.assert_close(levels_of(again(x)), levels_of(network(x)))


def test_nothing_in_a_graph_is_overwritten():
    """A node's tensor may be an output of the graph, too: no norm is in place."""
    network, x = tiny().eval(), torch.randn(1, 3, 64, 64)
    graph = torch.fx.symbolic_trace(network)
    seen = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            if isinstance(result, torch.Tensor):
                seen[node] = (result, result.clone())
            return result

    Recorder(graph).run(x)
    assert len(seen) > 40
    assert all(torch.equal(result, then) for result, then in seen.values())


def test_operators_and_layers_of_a_users_module(backend):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = DeformConv2d(4, 4, 3, padding=1), randomise(FrozenBatchNorm2d(4))

        def forward(self, x, offset):
            y = self.norm(self.conv(x, offset), residual=x, relu=True)
            y = ops.deform_conv2d(y, offset, self.conv.weight, padding=(1, 1), mask=offset[:, :9].sigmoid())
            return ops.frozen_bn_relu(y, self.norm.weight, self.norm.bias, residual=x)

    module, x, offset = Module(), torch.randn(2, 4, 5, 6), torch.randn(2, 18, 5, 6)
    graph = torch.fx.symbolic_trace(module)
    torch.testing.assert_close(graph(x, offset), module(x, offset))
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count(ops.deform_conv2d) == 2
    assert ops.frozen_bn_relu in targets


@pytest.fixture
def extraction():
    return pytest.importorskip("torchvision.models.feature_extraction")


def test_features_by_the_names_of_torchvisions_network(extraction):
    """Blocks, stages, relu nodes and convolutions are the tensors that torchvision's network has by these names."""
    utils = pytest.importorskip("torchvision.models.detection.backbone_utils")
    ours = torchvision_style(dcn=False, width=64).eval()
    theirs = utils.resnet_fpn_backbone(backbone_name="resnet50", weights=None).eval()
    theirs.body.load_state_dict(ours.body.state_dict())
    names = ["body.relu", "body.layer1", "body.layer2.0", "body.layer2.1.relu", "body.layer2.1.relu_1"]
    names += ["body.layer3.5.relu_2", "body.layer2.0.conv1", "body.layer2.0.downsample.1"]
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        got, expected = (extraction.create_feature_extractor(it, names).eval()(x) for it in (ours, theirs))
    assert set(got) == set(expected) == set(names)
    for name in names:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4 * float(expected[name].abs().max()))


def test_what_a_fused_norm_does_not_have_is_refused(extraction):
    """``bn3`` without the sum and ReLU is nowhere: better an error than another tensor."""
    network = tiny(dcn=False, bottleneck=True)
    train, evaluation = extraction.get_graph_node_names(network)
    assert train == evaluation
    assert "body.layer1.0.relu_2" in train
    for name in ("body.layer1.0.bn3", "body.layer1.0.add"):
        with pytest.raises(ValueError, match="not present in model"):
            extraction.create_feature_extractor(network, [name])


def test_a_hook_makes_the_norm_a_node_of_its_own(extraction):
    network = tiny(dcn=False).eval()
    handle = network.body.layer1[0].bn1.register_forward_hook(lambda *_: None)
    names = extraction.get_graph_node_names(network)[0]
    assert "body.layer1.0.relu" in names
    assert any(name.startswith("body.layer1.0.bn1") for name in names)
    handle.remove()
    assert not any(name.startswith("body.layer1.0.bn1") for name in extraction.get_graph_node_names(network)[0])
