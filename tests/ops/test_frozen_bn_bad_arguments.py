"""Each bad argument of frozen_bn_relu raises an error that names it, however the operator is called."""

import pytest
import torch
from helpers.bad_arguments import ERRORS, ids, moved, tensor, wrong_tensors

from resnet_cuda import ops, reference
from resnet_cuda.reference.checks import FLOATING

GOOD = {"input": (2, 3, 4, 5), "scale": (3,), "shift": (3,), "residual": (2, 3, 4, 5)}


def good():
    return {name: torch.randn(shape) for name, shape in GOOD.items()}


SHAPES, DTYPES, NO_TENSORS = wrong_tensors(
    GOOD,
    shapes={
        "input": [(3, 4, 5), (2, 3), (2, 3, 4, 5, 1)],
        "scale": [(2,), (4,), (1,), (), (1, 3, 1, 1)],
        "shift": [(2,), (4,), (3, 1)],
        # the last is of the same size
        "residual": [(3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 3, 5), (2, 3, 4, 6), (2, 3, 5, 4)],
    },
    dtypes={
        "input": "int64 complex64",
        "scale": "float16 bfloat16 int32",
        "shift": "float16 int64",
        "residual": "float64 float16 int64",
    },
)
ON_META = {f"{name} on meta": (name, tensor(*GOOD[name], device="meta")) for name in ("scale", "shift", "residual")}
BAD = SHAPES | DTYPES | ON_META
del NO_TENSORS["residual None"]


def test_the_good_arguments_are_good(backend):
    for options in ({}, {"relu": False}, {"inplace": True}):
        assert ops.frozen_bn_relu(**good(), **options).shape == (2, 3, 4, 5)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("name", "value"), [*ids(BAD), *ids(NO_TENSORS)])
def test_bad_argument_is_named(name, value, inplace, backend):
    for function in (ops.frozen_bn_relu, reference.frozen_bn_relu):
        with pytest.raises(ERRORS, match=rf"^frozen_bn_relu: {name}\b.* must be "):
            function(**(good() | {name: value}), inplace=inplace)


@pytest.mark.parametrize(("name", "value"), ids(SHAPES | DTYPES))
def test_bad_argument_is_named_for_meta_tensors(name, value, backend):
    with pytest.raises(ERRORS, match=rf"frozen_bn_relu: {name}\b.* must be "):
        ops.frozen_bn_relu(**moved(good() | {name: value}, "meta"))


def test_message_says_what_was_and_what_is_allowed(backend):
    with pytest.raises(ERRORS, match=r"scale is of shape \(4,\); it must be .*\(3,\)"):
        ops.frozen_bn_relu(**(good() | {"scale": tensor(4)}))
    with pytest.raises(ERRORS, match=r"residual is torch\.float64; it must be torch\.float32"):
        ops.frozen_bn_relu(**(good() | {"residual": good()["residual"].double()}))
    with pytest.raises(TypeError, match=r"shift is float; it must be a torch\.Tensor"):
        ops.frozen_bn_relu(**(good() | {"shift": 1.0}))


@pytest.mark.parametrize("operator", ["frozen_bn_relu", "frozen_bn_relu_"])
@pytest.mark.parametrize(("name", "value"), ids(BAD))
def test_registered_forward_names_the_bad_argument(name, value, operator, registered):
    arguments = good() | {name: value}
    with pytest.raises(ERRORS, match=rf"frozen_bn_relu: {name}\b.* must be "):
        getattr(torch.ops.resnet_cuda, operator)(*arguments.values(), True)


def test_reference_and_compiled_operators_support_the_same_dtypes(registered):
    """FLOATING of reference/checks.py; kSupportedDtypes of csrc/common/checks.h, which the operator's error lists."""
    gradient = torch.ones(2, 3, 4, 5, dtype=torch.int64)
    with pytest.raises(RuntimeError, match=r"must be one of ") as raised:
        torch.ops.resnet_cuda.frozen_bn_relu_backward(gradient, tensor(3), None, True, True)
    listed = str(raised.value).split("must be one of ")[1].split("\n")[0]
    assert set(listed.split(", ")) == {str(dtype) for dtype in FLOATING}


# id: (what is replaced, what the message may name, by what)
BAD_BACKWARD = {
    "grad 3-D": ("grad", "grad", tensor(3, 4, 5)),
    "grad int64": ("grad", "grad|output", tensor(2, 3, 4, 5, dtype=torch.int64)),
    "grad of another shape": ("grad", "grad|output", tensor(2, 3, 4, 6)),
    "grad float64": ("grad", "grad|output", tensor(2, 3, 4, 5, dtype=torch.float64)),
    "scale too short": ("scale", "scale", tensor(2)),
    "scale 2-D": ("scale", "scale", tensor(3, 1)),
    "scale bfloat16": ("scale", "scale", tensor(3, dtype=torch.bfloat16)),
    "scale on meta": ("scale", "scale", tensor(3, device="meta")),
    "output 3-D": ("output", "output", tensor(3, 4, 5)),
    "output of one image": ("output", "output", tensor(1, 3, 4, 5)),
    "output with a row less": ("output", "output", tensor(2, 3, 3, 5)),
    "output float16": ("output", "output", tensor(2, 3, 4, 5, dtype=torch.float16)),
    "output on meta": ("output", "output|scale", tensor(2, 3, 4, 5, device="meta")),
}


@pytest.mark.parametrize(("key", "name", "value"), ids(BAD_BACKWARD))
def test_registered_backward_names_the_bad_argument(key, name, value, registered):
    arguments = {"grad": tensor(2, 3, 4, 5), "scale": tensor(3), "output": tensor(2, 3, 4, 5)} | {key: value}
    with pytest.raises(ERRORS, match=rf"frozen_bn_relu: (?:{name})\b.* must be "):
        torch.ops.resnet_cuda.frozen_bn_relu_backward(*arguments.values(), True, True)


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["scale", "shift", "residual"])
def test_tensor_on_another_device(name, backend):
    arguments = moved(good(), "cuda") | {name: good()[name]}
    with pytest.raises(ERRORS, match=rf"^frozen_bn_relu: {name} is on cpu; it must be on .*cuda:0"):
        ops.frozen_bn_relu(**arguments)
