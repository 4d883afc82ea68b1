"""Tensors whose values are in other tensors: DTensors and other subclasses, refused by name and before any change."""

from __future__ import annotations

import pytest
import torch
import torch.distributed
from helpers.networks import narrow_fpn, randomise
from torch import nn

from resnet_cuda import load_weights
from resnet_cuda.weights.convert import convert
from resnet_cuda.weights.files import FileError, read, write
from resnet_cuda.weights.values import is_wrapper


class Elsewhere(torch.Tensor):
    """As torchao's quantized weights and torch's DTensor are made."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, strides=inner.stride())

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        if function in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(arguments[0].inner)
        raise NotImplementedError(f"{function} of an Elsewhere")


class Named(torch.Tensor):
    """A subclass with its values in its own storage."""


class Watched(torch.Tensor):
    """The same, which sees every operator."""

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), keywords=None):
        return super().__torch_dispatch__(function, types, arguments, keywords or {})


@pytest.fixture
def mesh():
    """A mesh of this process alone."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    finally:
        torch.distributed.destroy_process_group()


def distributed(state, mesh):
    from torch.distributed.tensor import Replicate, distribute_tensor

    return {key: distribute_tensor(value, mesh, [Replicate()]) for key, value in state.items()}


def test_which_tensors_are_wrappers():
    plain = torch.ones(2)
    for tensor in (plain, nn.Parameter(plain), plain.as_subclass(Named), plain.to("meta"), torch.ones(0), plain[:0]):
        assert not is_wrapper(tensor)
    assert not is_wrapper(plain.as_subclass(Watched))
    assert is_wrapper(Elsewhere(plain))
    assert is_wrapper(nn.Parameter(Elsewhere(plain)))
    with torch._subclasses.FakeTensorMode():
        assert is_wrapper(torch.ones(2))


def test_a_model_of_fsdp2_is_told_to_be_loaded_before(mesh):
    from torch.distributed.fsdp import fully_shard

    model, network = narrow_fpn(), randomise(narrow_fpn())
    fully_shard(model, mesh=mesh)
    before = {key: getattr(it, "full_tensor", it.clone)() for key, it in model.state_dict().items()}
    message = r"body\.conv1\.weight of the FSDPBackboneWithFPN is a DTensor.*before .*fully_shard.*set_model_state_dict"
    with pytest.raises(ValueError, match=message):
        load_weights(model, network)
    for key, value in model.state_dict().items():
        assert torch.equal(getattr(value, "full_tensor", value.clone)(), before[key])
    with pytest.raises(ValueError, match=r"body\.conv1\.weight is a DTensor.*\.full_tensor\(\)"):
        load_weights(network, model)


def test_what_the_message_for_fsdp2_says_works(mesh):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.fsdp import fully_shard

    model, network, plain = narrow_fpn(), randomise(narrow_fpn()), narrow_fpn()
    fully_shard(model, mesh=mesh)
    load_weights(plain, network)
    set_model_state_dict(model, plain.state_dict(), options=StateDictOptions(full_state_dict=True))
    for key, value in model.state_dict().items():
        assert torch.equal(getattr(value, "full_tensor", value.clone)(), network.state_dict()[key])


def test_state_dicts_of_dtensors_are_told_full_tensor(mesh, tmp_path):
    state = distributed(randomise(narrow_fpn()).state_dict(), mesh)
    model = narrow_fpn()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    message = r"state dict: body\.conv1\.weight is a DTensor, .*; call \.full_tensor\(\)"
    with pytest.raises(ValueError, match=message):
        load_weights(model, state)
    with pytest.raises(ValueError, match=message):
        convert(state, "detectron2")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    load_weights(model, {key: value.full_tensor() for key, value in state.items()})
    for container in ("torch", "pickle", "safetensors"):
        if container == "safetensors":
            pytest.importorskip("safetensors")
        with pytest.raises(FileError, match=r"content\['body\.conv1\.weight'\] is a DTensor"):
            write(state, tmp_path / "file", container)
        assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_dtensors_are_told_full_tensor(mesh, tmp_path, legacy):
    path = tmp_path / "file.pth"
    torch.save(distributed({"w": torch.ones(2)}, mesh), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(FileError, match=r"of a subclass whose values are in other tensors.*\.full_tensor\(\) gives"):
        read(path)


def test_other_wrappers_in_a_model_and_in_a_source():
    model, network = narrow_fpn(), randomise(narrow_fpn())
    model.body.layer3[0].conv1.weight = nn.Parameter(Elsewhere(torch.ones(32, 16, 3, 3)), requires_grad=False)
    before = {k: v.clone() for k, v in model.state_dict().items() if not is_wrapper(v)}
    with pytest.raises(ValueError, match=r"body\.layer3\.0\.conv1\.weight of the BackboneWithFPN is a Elsewhere"):
        load_weights(model, network)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    with pytest.raises(ValueError, match=r"layer3\.0\.conv1\.weight is a Elsewhere, .*make a plain torch\.Tensor"):
        load_weights(network, model)


def test_subclasses_with_values_of_their_own_are_loaded():
    network, model = randomise(narrow_fpn()), narrow_fpn()
    load_weights(model, {key: value.as_subclass(Named) for key, value in network.state_dict().items()})
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(4)]), "a nested tensor"),
        (lambda: nn.LazyConv2d(4, 3).weight, "not initialized yet"),
    ],
)
def test_tensors_without_a_shape_are_named(make, what):
    network = randomise(narrow_fpn())
    source = {**network.state_dict(), "body.conv1.weight": make()}
    for act in (lambda: load_weights(network, source), lambda: convert(source, "detectron2")):
        with pytest.raises(ValueError, match=f"state dict: body.conv1.weight is {what}"):
            act()
