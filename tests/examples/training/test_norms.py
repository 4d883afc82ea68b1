"""Batch norms of frozen layers keep their statistics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detection.models.build import build_model
from detection.training import norms
from detection.training.engine import train
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from training_support import CPU, MODEL, OPTIONS, coco, write_coco

from resnet_cuda.layers import FrozenBatchNorm2d


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_coco(folder / "coco")
    return coco(folder / "coco")


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    """Of each batch norm, by its name."""
    return {name: it.clone() for name, it in model.state_dict().items() if "running_" in name}


@pytest.mark.parametrize("norm", ["bn", "sync_bn"])
@pytest.mark.parametrize("layers", [0, 3])
def test_frozen_layers_keep_their_statistics_also_after_validations(data, tmp_path, norm, layers):
    model = replace(MODEL, norm=norm, trainable_layers=layers)
    options = replace(OPTIONS, evaluate_every=2)
    first = train(data, model, replace(options, stop_after=0), tmp_path, CPU, validation=data)
    before = statistics(first)
    frozen = {
        name for name, layer in first.named_modules() if isinstance(layer, BatchNorm) and not layer.weight.requires_grad
    }
    assert any("layer1" in name for name in frozen) and any("layer3" in name for name in frozen) == (layers == 0)
    after = statistics(train(data, model, options, tmp_path, CPU, validation=data))
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (name.rpartition(".")[0] in frozen), name
    # Measured where there are no weights, as frozen norms with 0 and 1 would normalise nothing.
    assert all(before[f"{name}.running_mean"].any() for name in frozen)


@pytest.mark.parametrize("norm", ["frozen_bn", "bn", "gn"])
def test_what_was_measured_is_said_where_something_was(data, tmp_path, capsys, norm):
    model, options = replace(MODEL, norm=norm, trainable_layers=0), replace(OPTIONS, iterations=1, warmup=0)
    trained = train(data, model, options, tmp_path, CPU)
    count = sum(isinstance(it, (FrozenBatchNorm2d, BatchNorm)) for it in trained.modules())
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "measured" in line]
    expected = f"from scratch: statistics of {count} norms measured on {len(data)} images"
    assert said == ([] if norm == "gn" else [expected])


def test_which_norms_are_frozen():
    model = build_model(replace(MODEL, norm="bn", trainable_layers=2))
    norms.train_mode(model)
    batch_norms = {name: it for name, it in model.named_modules() if isinstance(it, BatchNorm)}
    modes = {name: layer.training for name, layer in batch_norms.items()}
    assert {name.split(".")[2] for name, training in modes.items() if not training} == {"bn1", "layer1", "layer2"}
    assert {name.split(".")[2] for name, training in modes.items() if training} == {"layer3", "layer4"}
    assert norms.frozen(nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.GroupNorm(1, 3))) == []


def test_measured_statistics_normalise_the_images():
    model = build_model(replace(MODEL, norm="bn", trainable_layers=0))
    measured = norms.measure_frozen(model, [torch.rand(3, 48, 64) for _ in range(4)])
    assert measured == len(norms.frozen(model)) > 0
    assert not model.training
    images = [torch.rand(3, 48, 64) for _ in range(4)]
    features = model.backbone.body(model.transform(images)[0].tensors)
    assert all(0.1 < value.std() < 10 for value in features.values())
