"""frozen_bn_relu(inplace=True): the same tensor comes back, the graph stays right, nothing more is saved."""

import pytest
import torch
import torch.nn.functional as F
from helpers.cases import NORM_CASES
from helpers.compare import assert_bitwise_equal
from helpers.layouts import channels_last, every_second, in_format, transposed
from helpers.norm_problems import norm_arguments

from resnet_cuda import ops, reference

BY_NAME = {case.name: case for case in NORM_CASES}
CASES = ("relu", "affine", "residual", "residual_affine", "channels_33", "tiles")


@pytest.mark.parametrize("name", CASES)
def test_returns_the_input_itself_overwritten(name, memory_format, dtype, device, backend):
    case = BY_NAME[name]
    arguments = in_format(norm_arguments(case, dtype, device), memory_format)
    arguments.pop("grad")
    expected = ops.frozen_bn_relu(**arguments, relu=case.relu)
    input = arguments.pop("input")
    memory, strides, version = input.data_ptr(), input.stride(), input._version
    output = ops.frozen_bn_relu(input, **arguments, relu=case.relu, inplace=True)
    assert output is input
    assert (output.data_ptr(), output.stride()) == (memory, strides)
    assert output._version > version, "autograd must see that the tensor was changed"
    assert_bitwise_equal(output, expected, "output")


@pytest.mark.parametrize("name", CASES)
def test_gradients_through_a_graph_are_those_out_of_place(name, device, backend):
    """conv, in place over its output, conv: the gradients are those of the graph out of place."""
    case = BY_NAME[name]
    arguments = norm_arguments(case, torch.float64, device)
    channels = case.shape[1]
    weights = torch.randn(2, channels, channels, 3, 3, dtype=torch.float64, device=device)

    def gradients(function, inplace):
        leaves = [arguments["input"].clone().requires_grad_(), *(w.clone().requires_grad_() for w in weights)]
        residual = arguments["residual"]
        if residual is not None:
            residual = residual.clone().requires_grad_()
            leaves.append(residual)
        hidden = F.conv2d(leaves[0], leaves[1], padding=1)
        output = function(hidden, arguments["scale"], arguments["shift"], residual, relu=case.relu, inplace=inplace)
        assert (output is hidden) == inplace
        output = F.conv2d(output, leaves[2], padding=1)
        return torch.autograd.grad(output, leaves, arguments["grad"])

    expected = gradients(reference.frozen_bn_relu, False)
    assert all(gradient.any() for gradient in expected)
    torch.testing.assert_close(gradients(ops.frozen_bn_relu, True), expected)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad], ids=["no_grad", "enable_grad"])
def test_overwriting_what_a_graph_has_saved_is_an_error(grad_mode, device, backend):
    """Found at backward, as for every in-place operation."""
    constants = torch.ones(3, device=device)
    saved = torch.randn(2, 3, 4, 4, device=device)
    product = saved * torch.ones_like(saved, requires_grad=True)
    hidden = saved.clone().requires_grad_().exp()  # whose backward needs its own output
    with grad_mode():
        ops.frozen_bn_relu(saved, constants, constants, inplace=True)
        ops.frozen_bn_relu(hidden, constants, constants, inplace=True)
    for output in (product, hidden):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


def test_in_place_twice_and_on_a_view(device, backend):
    leaf = torch.randn(2, 6, 4, 4, dtype=torch.float64, device=device, requires_grad=True)
    scale, shift = torch.tensor([2.0, 0.5, -1.0], device=device), torch.tensor([0.1, 0.2, 0.3], device=device)

    def through(function, inplace):
        hidden = leaf * 1
        half = hidden[:, 3:]
        # The affine one needs nothing for its backward; one with a ReLU needs its output and could not come first.
        out = function(half, scale, shift, relu=False, inplace=inplace)
        out = function(out, scale, shift, inplace=inplace)
        if not inplace:
            hidden = torch.cat((hidden[:, :3], out), dim=1)
        return hidden, torch.autograd.grad((hidden**2).sum(), leaf)[0]

    output, gradient = through(ops.frozen_bn_relu, True)
    expected, expected_gradient = through(reference.frozen_bn_relu, False)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("layout", [transposed, every_second, channels_last], ids=lambda layout: layout.__name__)
def test_in_place_on_a_view_that_is_not_dense(layout, dtype, device, backend):
    """What lies between the elements of the view is not touched."""
    case = BY_NAME["channels_17"]
    arguments = norm_arguments(case, dtype, device)
    arguments.pop("grad")
    expected = ops.frozen_bn_relu(**arguments, relu=case.relu)
    view = layout(arguments.pop("input"))
    gaps = view._base.flatten()[1::2].fill_(5) if layout is every_second else None  # NaN would pass through
    strides = view.stride()
    output = ops.frozen_bn_relu(view, **arguments, relu=case.relu, inplace=True)
    assert output is view
    assert view.stride() == strides
    assert_bitwise_equal(view, expected, "output")
    if gaps is not None:
        assert (gaps == 5).all()


def test_residual_may_be_the_input_or_overlap_it(device, backend):
    """In place, an element of the residual must be read before it is overwritten."""
    scale, shift = torch.tensor([2.0, -1.0, 0.5], device=device), torch.tensor([0.5, 0.25, 0.0], device=device)
    storage = torch.randn(2 * 3 * 40 * 50 + 1, device=device)
    for start in (0, 1):
        for residual_start in (0, 1):
            memory = storage.clone()
            input = memory[start : storage.numel() - 1 + start].view(2, 3, 40, 50)
            residual = memory[residual_start : storage.numel() - 1 + residual_start].view(2, 3, 40, 50)
            expected = reference.frozen_bn_relu(input.clone(), scale, shift, residual.clone())
            ops.frozen_bn_relu(input, scale, shift, residual, inplace=True)
            torch.testing.assert_close(input, expected, rtol=0, atol=1e-6)


def test_a_leaf_that_needs_its_gradient_is_refused(backend):
    leaf = torch.randn(1, 2, 3, 3, requires_grad=True)
    before = leaf.detach().clone()
    with pytest.raises(RuntimeError, match="leaf"):
        ops.frozen_bn_relu(leaf, torch.ones(2), torch.zeros(2), inplace=True)
    assert torch.equal(leaf.detach(), before), "refused, but overwritten"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
def test_without_gradients_a_leaf_may_be_overwritten(mode, backend):
    """As a frozen model does in evaluation, where parameters upstream still ask for gradients."""
    leaf = torch.tensor([-1.0, 2.0]).reshape(1, 2, 1, 1).requires_grad_()
    residual = torch.ones(1, 2, 1, 1, requires_grad=True)
    with mode():
        output = ops.frozen_bn_relu(leaf, torch.ones(2), torch.zeros(2), residual, inplace=True)
        assert output is leaf
        assert output.flatten().tolist() == [0.0, 3.0]


@pytest.mark.parametrize("dim", [0, 1, 2, 3])
def test_an_expanded_input_is_refused(dim, backend):
    """Several of its elements are one place in memory."""
    shape = [2, 3, 4, 5]
    shape[dim] = 1
    input = torch.randn(shape).expand(2, 3, 4, 5)
    with pytest.raises(RuntimeError, match=r"expanded|single memory location|overlap"):
        ops.frozen_bn_relu(input, torch.ones(3), torch.zeros(3), inplace=True)


def saved_activations(function, shape):
    """Distinct memory of at least an activation's size that autograd keeps for backward."""
    kept = {}

    def pack(tensor):
        if tensor.numel() >= torch.Size(shape).numel():
            kept[tensor.untyped_storage().data_ptr()] = tensor.shape
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = function()
    return kept, output


@pytest.mark.parametrize(
    ("relu", "with_residual", "inplace", "count"),
    [
        (True, False, True, 1),
        (True, True, True, 1),
        (True, True, False, 1),
        (False, False, True, 0),
        (False, True, False, 0),
    ],
)
def test_nothing_but_the_output_is_saved(relu, with_residual, inplace, count, device, registered):
    shape = (2, 8, 16, 16)
    leaf = torch.randn(shape, device=device, requires_grad=True)
    hidden = leaf * 1
    residual = torch.randn(shape, device=device, requires_grad=True) if with_residual else None
    constants = torch.ones(8, device=device), torch.zeros(8, device=device)
    kept, output = saved_activations(
        lambda: ops.frozen_bn_relu(hidden, *constants, residual, relu=relu, inplace=inplace), shape
    )
    assert len(kept) == count
    assert not kept or list(kept) == [output.untyped_storage().data_ptr()]


def test_a_block_saves_one_activation_per_convolution(device, registered):
    """conv, norm in place, conv, norm in place: the norms' outputs are the convolutions' inputs, saved once."""
    shape = (2, 8, 16, 16)
    leaf = torch.randn(shape, device=device, requires_grad=True)
    weights = torch.randn(2, 8, 8, 3, 3, device=device, requires_grad=True)
    constants = torch.ones(8, device=device), torch.zeros(8, device=device)

    def block():
        hidden = ops.frozen_bn_relu(F.conv2d(leaf, weights[0], padding=1), *constants, inplace=True)
        return ops.frozen_bn_relu(F.conv2d(hidden, weights[1], padding=1), *constants, leaf, inplace=True)

    kept, _ = saved_activations(block, shape)
    assert len(kept) == 3  # the block's input, the hidden activation, the block's output


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.enable_grad])
def test_inference_tensors_are_refused_outside_inference_mode(grad_mode, backend):
    """Nothing would notice the write: they have no version."""
    with torch.inference_mode():
        x = torch.randn(1, 2, 3, 3)
        ops.frozen_bn_relu(x, torch.ones(2), torch.zeros(2), inplace=True)
    before = x.clone()
    with grad_mode(), pytest.raises(RuntimeError, match=r"nference tensor"):
        ops.frozen_bn_relu(x, torch.ones(2), torch.ones(2), inplace=True)
    assert torch.equal(x, before)
