"""Operators and modules that many threads call at the same time, on shared weights: each gets what one thread gets.

The compiled operators release the GIL, so their threads run side by side with any Python; without a GIL
(Python 3.14t) all that the package keeps between calls is read and written side by side, too.
"""

from __future__ import annotations

import copy
import sysconfig

import pytest
import torch
from helpers.networks import cfg_built, levels_of, loss_of, randomise, torchvision_style
from helpers.processes import run_python
from helpers.threads import in_threads
from torch import nn

import resnet_cuda
from resnet_cuda import _backend, layers

THREADS, ROUNDS = 8, 4
SIZES = ((40, 56), (56, 40), (48, 48))  # more than a layer keeps packed weights of
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture(autouse=True)
def _one_thread_each():
    """Of torch's own; a new thread of Python's takes the number from here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def images(number: int, channels: int = 3) -> torch.Tensor:
    height, width = SIZES[number % len(SIZES)]
    generator = torch.Generator().manual_seed(number)
    return torch.randn(1, channels, height, width, generator=generator)


def deformable():
    """Both deformable operators and their gradients for weights that all threads share."""
    layer = layers.DFConv2d(16, 16, bias=True)
    randomise(nn.Sequential(layer))
    leaves = list(layer.parameters())

    def call(number):
        x = images(number, 16).requires_grad_()
        y = layer(x)
        return [y.detach(), *torch.autograd.grad((y**2).mean(), [x, *leaves])]

    return call


def frozen_norm():
    """The layer with a residual, in every dtype in turn, forward and backward, and in place."""
    norm = randomise(layers.FrozenBatchNorm2d(16))
    dtypes = (torch.float32, torch.float64, torch.bfloat16)

    def call(number):
        x, residual = (images(it, 16).to(dtypes[number % 3]).requires_grad_() for it in (number, number + 3))
        y = norm(x, residual, relu=True)
        gradients = torch.autograd.grad((y.double() ** 2).mean(), [x, residual])
        with torch.no_grad():
            overwritten = norm(x.detach().clone(), residual, relu=True, inplace=True)
        return [y.detach().float(), *(it.float() for it in gradients), overwritten.float()]

    return call


def training(make):
    def job():
        network = make()
        leaves = [it for it in network.parameters() if it.requires_grad]

        def call(number):
            levels = network(images(number))
            gradients = torch.autograd.grad(loss_of(levels), leaves)
            return [*(it.detach() for it in levels_of(levels)), *gradients]

        return call

    return job


def optimized(make, dtype=None):
    def job():
        fast = resnet_cuda.optimize_for_inference(make().eval())

        def call(number):
            with torch.no_grad(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
                return [it.float() for it in levels_of(fast(images(number)))]

        return call

    return job


JOBS = {
    "deformable": deformable,
    "frozen_norm": frozen_norm,
    "torchvision_style": training(torchvision_style),
    "cfg_built": training(cfg_built),
    "optimized": optimized(torchvision_style),
    "optimized_plain": optimized(lambda: torchvision_style(dcn=False, width=16)),
    "optimized_autocast": optimized(torchvision_style, torch.bfloat16),
}


def compare(call, fresh):
    """``call`` by all threads at once equals ``fresh``, another copy of the same, by this one."""
    expected = [fresh(number) for number in range(THREADS)]

    def rounds(number):
        return [call((number + it) % THREADS) for it in range(ROUNDS)]

    for number, found in enumerate(in_threads(THREADS, rounds)):
        for it, got in enumerate(found):
            torch.testing.assert_close(got, expected[(number + it) % THREADS], **CLOSE)


@pytest.mark.parametrize("name", JOBS)
def test_of_one_kind(name):
    torch.manual_seed(0)
    fresh = JOBS[name]()
    torch.manual_seed(0)
    compare(JOBS[name](), fresh)


def test_of_all_kinds_at_once():
    def all_jobs():
        torch.manual_seed(0)
        calls = [job() for job in JOBS.values()]
        return lambda number: calls[number % len(calls)](number)

    compare(all_jobs(), all_jobs())


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has the GIL")
def test_the_import_leaves_the_gil_off():
    """A module that does not declare that it can do without turns it on for the whole process, with a warning."""
    result = run_python("-W", "error", "-c", "import resnet_cuda, sys; print(sys._is_gil_enabled())")
    assert (result.returncode, result.stdout.strip()) == (0, "False"), result.stderr


def test_while_others_choose_the_implementation():
    """Either one gives the results, and what was chosen before all is chosen again."""
    call, fresh = (optimized(torchvision_style)() for _ in range(2))
    expected = [fresh(number) for number in range(len(SIZES))]

    def choose(number):
        for name in ("reference", "native", "auto") * ROUNDS:
            with resnet_cuda.use_backend(name):
                torch.testing.assert_close(call(number % len(SIZES)), expected[number % len(SIZES)], **CLOSE)

    resnet_cuda.use_backend("auto")
    in_threads(THREADS, choose)
    assert _backend._choice == "auto"


def test_while_another_thread_optimizes_and_accelerates():
    """Copies of the same network, made while it is called."""
    network = torchvision_style().eval()
    with torch.no_grad():
        expected = [levels_of(network(images(number))) for number in range(len(SIZES))]

    @torch.no_grad()
    def call(number):
        for it in range(ROUNDS):
            one = (number + it) % len(SIZES)
            module = network
            if number % 2:
                module = resnet_cuda.optimize_for_inference(network if number % 4 == 1 else copy.deepcopy(network))
            torch.testing.assert_close(levels_of(module(images(one))), expected[one], rtol=1e-3, atol=1e-3)

    in_threads(THREADS, call)
