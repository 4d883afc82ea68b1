"""The ways in which other code replaces a class's method: each is told from what the library wrote."""

from __future__ import annotations

import functools
import subprocess
import sys
import types

import pytest
import torch
from helpers.accelerated import image, randomised
from torch import nn

from resnet_cuda import accelerate, optimize_for_inference
from resnet_cuda.patched import Originals, is_patched

models = pytest.importorskip("torchvision.models")
from torchvision.models import resnet  # noqa: E402


class Proxy:
    """Answers for the function in it, as wrapt's wrappers do: also for ``==``, ``__class__`` and ``__globals__``."""

    def __init__(self, function):
        object.__setattr__(self, "function", function)

    def __getattr__(self, name):
        return getattr(self.function, name)

    @property
    def __class__(self):
        return types.FunctionType

    def __eq__(self, other):
        return self.function == other

    def __hash__(self):
        return hash(self.function)

    def __get__(self, instance, owner):
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *arguments):
        return self.function(*arguments) * 1.5


def generated(function):
    """By source that runs in a copy of the function's globals, as the package decorator does."""
    namespace = dict(function.__globals__)
    exec("def forward(self, x):\n    return original(self, x) * 1.5", namespace)
    namespace["original"] = function
    return named(namespace["forward"], function)


def generated_in_place(function):
    """In the globals themselves."""
    namespace = function.__globals__
    namespace["original"] = function
    found: dict = {}
    exec("def forward(self, x):\n    return original(self, x) * 1.5", namespace, found)
    return named(found["forward"], function)


def named(patch, function):
    patch.__qualname__, patch.__module__ = function.__qualname__, function.__module__
    return patch


def wrapped(function):
    return functools.wraps(function)(lambda self, x: function(self, x) * 1.5)


def partial(function):
    return functools.partialmethod(lambda self, factor, x: function(self, x) * factor, 1.5)


TOOLS = (Proxy, generated, wrapped, partial)
CLASSES = (resnet.BasicBlock, nn.BatchNorm2d, nn.ReLU, nn.Sequential)


def network():
    return randomised(models.resnet18(num_classes=7)).double().eval()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:optimize_for_inference")
@pytest.mark.parametrize("known", CLASSES, ids=lambda it: it.__name__)
@pytest.mark.parametrize("tool", TOOLS, ids=lambda it: it.__name__)
def test_the_patch_stays_in_effect(tool, known, monkeypatch):
    model, x = network(), image(1, 3, 48, 40)
    monkeypatch.setattr(known, "forward", tool(known.forward))
    assert is_patched(known, "forward")
    expected = model(x)
    torch.testing.assert_close(optimize_for_inference(model)(x), expected, rtol=1e-9, atol=1e-9)
    accelerate(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("tool", TOOLS, ids=lambda it: it.__name__)
@pytest.mark.parametrize("known", CLASSES[1:], ids=lambda it: it.__name__)
def test_a_patch_after_accelerate_takes_effect(known, tool, monkeypatch):
    model, x = network(), image(1, 3, 48, 40)
    fast = network()
    fast.load_state_dict(model.state_dict())
    accelerate(fast)
    monkeypatch.setattr(known, "forward", tool(known.forward))
    torch.testing.assert_close(fast(x), model(x), rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="code objects have no qualified name before Python 3.11")
def test_a_function_made_in_the_librarys_globals(monkeypatch):
    monkeypatch.setitem(vars(resnet), "original", None)
    monkeypatch.setattr(resnet.BasicBlock, "forward", generated_in_place(resnet.BasicBlock.forward))
    assert is_patched(resnet.BasicBlock, "forward")


class Raises:
    def __get__(self, instance, owner):
        raise AttributeError


NO_FUNCTIONS = {
    "None": None,
    "a descriptor that raises": Raises(),
    "an empty property": property(),
    "a method of another object": types.MethodType(lambda self, x: x, object()),
    "a builtin": torch.relu,
}


@pytest.mark.parametrize("name", NO_FUNCTIONS)
def test_what_is_no_function(name, monkeypatch):
    monkeypatch.setattr(resnet.BasicBlock, "forward", NO_FUNCTIONS[name])
    assert is_patched(resnet.BasicBlock, "forward")


def test_a_method_that_no_class_has():
    assert not is_patched(resnet.BasicBlock, "_conv_forward")


def test_originals_are_compared_by_identity():
    assert nn.ReLU.forward in Originals("forward", nn.ReLU)
    assert Proxy(nn.ReLU.forward) not in Originals("forward", nn.ReLU)


def test_originals_that_were_patched_for_a_time(monkeypatch):
    monkeypatch.setattr(nn.ReLU, "forward", wrapped(nn.ReLU.forward))
    originals = Originals("forward", nn.ReLU, nn.Identity)
    assert nn.ReLU.forward not in originals and nn.Identity.forward in originals
    monkeypatch.undo()
    assert nn.ReLU.forward in originals


def test_the_first_import_within_a_trace():
    """torch.fx replaces ``Module.__call__`` while it traces; what runs afterwards is fused nevertheless."""
    program = """
import torch
from torch import nn

class Imports(nn.Module):
    def forward(self, x):
        import resnet_cuda
        return x

torch.fx.symbolic_trace(Imports())
from resnet_cuda.layers.overwriting import nobody_records
assert nobody_records()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
