"""Second derivatives of whole networks: Hessian-vector products and gradient penalties, as the reference's."""

from __future__ import annotations

import pytest
import torch
from helpers.networks import assert_equal, cfg_built, gradients, loss_of, torchvision_style

from resnet_cuda import use_backend


def both(run, make, **tolerance):
    """``run`` of the network in float64 on the compiled operators and on the reference: the same numbers."""
    results = []
    for name in ("native", "reference"):
        with use_backend(name):
            results.append(run(make().double()))
    assert any(value.any() for value in results[1].values())
    assert_equal(*results, **tolerance)


def image():
    generator = torch.Generator().manual_seed(4)
    return torch.randn(1, 3, 32, 48, generator=generator, dtype=torch.float64).requires_grad_()


def plain():
    return torchvision_style(dcn=False)


@pytest.mark.parametrize("make", [plain, torchvision_style])
def test_a_product_with_the_hessian_of_layer1(make, native):
    """What an optimiser or a sharpness measure asks for: grad(..., inputs) of the parameters of a part."""

    def run(network):
        names, parameters = zip(*network.body.layer1.named_parameters(), strict=True)
        first = torch.autograd.grad(loss_of(network(image())), parameters, create_graph=True)
        product = sum((gradient * torch.ones_like(gradient)).sum() for gradient in first)
        return dict(zip(names, torch.autograd.grad(product, parameters), strict=True))

    both(run, make)


@pytest.mark.parametrize("make", [torchvision_style, cfg_built])
def test_the_gradient_of_the_r1_penalty(make, native):
    """The squared gradient at the image, whose own gradient trains the network (Mescheder et al. 2018)."""

    def run(network):
        x = image()
        (gradient,) = torch.autograd.grad(loss_of(network(x)), x, create_graph=True)
        gradient.square().sum().backward()
        return gradients(network) | {"image": x.grad}

    both(run, make)


def test_backward_of_chosen_inputs_only(native):
    def run(network):
        parameter = network.body.layer4[0].conv2.conv.weight
        (gradient,) = torch.autograd.grad(loss_of(network(image())), parameter, create_graph=True)
        gradient.square().sum().backward(inputs=[parameter])
        return gradients(network)

    both(run, torchvision_style)


def test_the_gradient_of_the_whole_network_under_torch_func(native):
    def run(network):
        parameters = {name: it.detach() for name, it in network.named_parameters() if ".layer4.0.conv2." in name}
        x = image().detach()

        def loss(values):
            return loss_of(torch.func.functional_call(network, values, (x,)))

        return torch.func.grad(loss)(parameters)

    both(run, torchvision_style)
