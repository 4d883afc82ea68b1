"""torch.export: the operators stay whole in the graph, and the batch and the image may have any size."""

import io

import pytest
import torch
from torch import nn

from resnet_cuda import ops

pytestmark = pytest.mark.usefixtures("registered")


class Block(nn.Module):
    """A deformable convolution, the norm in place over its output, the residual."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3) * 0.1)
        self.predict = nn.Conv2d(8, 27, 3, padding=1)
        self.register_buffer("scale", torch.randn(8))
        self.register_buffer("shift", torch.randn(8))

    def forward(self, x):
        both = self.predict(x)
        y = ops.deform_conv2d(x, both[:, :18], self.weight, padding=1, mask=both[:, 18:].sigmoid())
        return ops.frozen_bn_relu(y, self.scale, self.shift, residual=x, inplace=True)


def exported(block):
    batch, height, width = (torch.export.Dim(name, min=2, max=4096) for name in ("batch", "height", "width"))
    return torch.export.export(block, (torch.randn(2, 8, 9, 11),), dynamic_shapes=({0: batch, 2: height, 3: width},))


@pytest.mark.parametrize("training", [False, True])
def test_export_with_dynamic_sizes(training):
    block = Block().train(training)
    program = exported(block)
    targets = [str(node.target) for node in program.graph.nodes if "resnet_cuda" in str(node.target)]
    assert targets == ["resnet_cuda.deform_conv2d.default", "resnet_cuda.frozen_bn_relu.default"]
    for shape in ((2, 8, 9, 11), (5, 8, 4, 30), (3, 8, 17, 6)):
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), block(x))


def test_export_survives_saving_and_decomposition():
    block = Block()
    program = exported(block)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    x = torch.randn(4, 8, 7, 12)
    torch.testing.assert_close(torch.export.load(file).module()(x), block(x))
    decomposed = program.run_decompositions()
    assert any("resnet_cuda.deform_conv2d" in str(node.target) for node in decomposed.graph.nodes)
    torch.testing.assert_close(decomposed.module()(x), block(x))


def test_export_refuses_what_the_operator_refuses():
    class Wrong(nn.Module):
        def forward(self, x, offset, weight):
            return ops.deform_conv2d(x, offset, weight)

    arguments = torch.randn(2, 4, 6, 6), torch.randn(2, 17, 4, 4), torch.randn(3, 4, 3, 3)
    with pytest.raises(Exception, match="deform_conv2d: offset"):
        torch.export.export(Wrong(), arguments)
