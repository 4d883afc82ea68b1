"""Each bad argument of frozen_bn_relu raises an error that names it, by whatever door it comes in."""

import pytest
import torch

from resnet_cuda import ops, reference

ERRORS = (RuntimeError, ValueError, TypeError)


def tensor(*shape, dtype=torch.float32, device="cpu"):
    return torch.zeros(shape, dtype=dtype, device=device)


def good():
    return {
        "input": torch.randn(2, 3, 4, 5),
        "scale": torch.randn(3),
        "shift": torch.randn(3),
        "residual": torch.randn(2, 3, 4, 5),
    }


BAD = {
    "input 3-D": ("input", tensor(3, 4, 5)),
    "input 2-D": ("input", tensor(2, 3)),
    "input 5-D": ("input", tensor(2, 3, 4, 5, 1)),
    "input int64": ("input", tensor(2, 3, 4, 5, dtype=torch.int64)),
    "input complex": ("input", tensor(2, 3, 4, 5, dtype=torch.complex64)),
    "scale too short": ("scale", tensor(2)),
    "scale too long": ("scale", tensor(4)),
    "scale of one value": ("scale", tensor(1)),
    "scale 0-D": ("scale", tensor()),
    "scale 4-D": ("scale", tensor(1, 3, 1, 1)),
    "scale float16": ("scale", tensor(3, dtype=torch.float16)),
    "scale bfloat16": ("scale", tensor(3, dtype=torch.bfloat16)),
    "scale int32": ("scale", tensor(3, dtype=torch.int32)),
    "scale on meta": ("scale", tensor(3, device="meta")),
    "shift too short": ("shift", tensor(2)),
    "shift too long": ("shift", tensor(4)),
    "shift 2-D": ("shift", tensor(3, 1)),
    "shift float16": ("shift", tensor(3, dtype=torch.float16)),
    "shift int64": ("shift", tensor(3, dtype=torch.int64)),
    "shift on meta": ("shift", tensor(3, device="meta")),
    "residual 3-D": ("residual", tensor(3, 4, 5)),
    "residual of one image": ("residual", tensor(1, 3, 4, 5)),
    "residual of one channel": ("residual", tensor(2, 1, 4, 5)),
    "residual with a row less": ("residual", tensor(2, 3, 3, 5)),
    "residual with a column more": ("residual", tensor(2, 3, 4, 6)),
    "residual of the same size in another shape": ("residual", tensor(2, 3, 5, 4)),
    "residual float64": ("residual", tensor(2, 3, 4, 5, dtype=torch.float64)),
    "residual float16": ("residual", tensor(2, 3, 4, 5, dtype=torch.float16)),
    "residual int64": ("residual", tensor(2, 3, 4, 5, dtype=torch.int64)),
    "residual on meta": ("residual", tensor(2, 3, 4, 5, device="meta")),
}
NO_TENSORS = {
    f"{name} {value!r}": (name, value)
    for name in ("input", "scale", "shift", "residual")
    for value in ([1.0], 2.0, "tensor", None)
    if not (name == "residual" and value is None)
}


def ids(table):
    return [pytest.param(*entry, id=name) for name, entry in table.items()]


def test_the_good_arguments_are_good(backend):
    for options in ({}, {"relu": False}, {"inplace": True}):
        assert ops.frozen_bn_relu(**good(), **options).shape == (2, 3, 4, 5)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(("name", "value"), [*ids(BAD), *ids(NO_TENSORS)])
def test_bad_argument_is_named(name, value, inplace, backend):
    with pytest.raises(ERRORS, match=rf"^frozen_bn_relu: {name}\b.* must be "):
        ops.frozen_bn_relu(**(good() | {name: value}), inplace=inplace)


@pytest.mark.parametrize(("name", "value"), [*ids(BAD), *ids(NO_TENSORS)])
def test_bad_argument_is_named_by_the_reference(name, value):
    with pytest.raises(ERRORS, match=rf"^frozen_bn_relu: {name}\b.* must be "):
        reference.frozen_bn_relu(**(good() | {name: value}))


@pytest.mark.parametrize(("name", "value"), ids({key: entry for key, entry in BAD.items() if "meta" not in key}))
def test_bad_argument_is_named_for_meta_tensors(name, value, backend):
    arguments = {key: tensor.to("meta") for key, tensor in (good() | {name: value}).items()}
    with pytest.raises(ERRORS, match=rf"frozen_bn_relu: {name}\b.* must be "):
        ops.frozen_bn_relu(**arguments)


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
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU that torch can use")
@pytest.mark.parametrize("name", ["scale", "shift", "residual"])
def test_tensor_on_another_device(name, backend):
    arguments = {key: value.cuda() for key, value in good().items()} | {name: good()[name]}
    with pytest.raises(ERRORS, match=rf"^frozen_bn_relu: {name}\b.*device"):
        ops.frozen_bn_relu(**arguments)
