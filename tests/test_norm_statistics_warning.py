"""The warning about frozen norms without statistics: where it matters, once, and nothing breaks by the check."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from helpers.networks import frozen_norms, narrow_cfg, narrow_fpn, one_process_group
from helpers.threads import in_threads
from torch import nn

from resnet_cuda import calibrate, norm_statistics_warning, resnet
from resnet_cuda.layers import FrozenBatchNorm2d

GROUP_NORM = {"TRANS_FUNC": "BottleneckWithGN", "STEM_FUNC": "StemWithGN", "RES2_OUT_CHANNELS": 32}
MESSAGE = "is being trained with FrozenBatchNorm2d layers that were never given statistics"


def configured(**resnets):
    return resnet.ResNet(narrow_cfg(**resnets))


def head():
    return resnet.ResNetHead(
        "BottleneckWithFixedBatchNorm", [resnet.StageSpec(4, 1, False)], width_per_group=8, res2_out_channels=16
    )


def x():
    return torch.rand(1, 3, 32, 32)


def warned(function, *arguments) -> int:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        function(*arguments)
    return sum(MESSAGE in str(warning.message) for warning in seen)


def checks(module) -> bool:
    """Whether the first step of ``module`` in training mode will still be checked."""
    return len(module._forward_pre_hooks) > 0 and not module._checked


@pytest.mark.parametrize("trainable", range(6))
def test_once_at_the_first_step_however_much_is_trained(trainable, backend):
    model = narrow_fpn(trainable_layers=trainable)
    assert warned(model.eval(), x()) == 0  # shapes, speed
    with pytest.warns(UserWarning, match=rf"TorchvisionBody {MESSAGE}.*in all 20 of them.*resnet_cuda.calibrate"):
        model.train()(x())
    assert not checks(model.body)
    assert warned(model, x()) == 0


def test_bodies_and_heads_by_configuration_warn():
    assert warned(configured(), x()) == 1
    assert warned(head(), torch.rand(1, 64, 4, 4)) == 1


def loaded(model):
    state = {name: torch.rand_like(value) if "running" in name else value for name, value in model.state_dict().items()}
    model.load_state_dict(state)


def through_data(model):
    for layer in frozen_norms(model).values():
        layer.bias.data.uniform_()


def one_layer(model):
    list(frozen_norms(model).values())[-1].weight.mul_(2)


@pytest.mark.parametrize("change", [loaded, through_data, one_layer, lambda model: calibrate(model, x())])
def test_not_where_the_statistics_came_somehow(change):
    for model in (narrow_fpn(), configured()):
        change(model)
        assert warned(model.train(), x()) == 0
        assert not any(checks(module) for module in model.modules())


@pytest.mark.parametrize("norm", ["bn", "gn", "sync_bn", lambda channels: nn.InstanceNorm2d(channels)])
def test_not_with_other_norms(norm):
    model = narrow_fpn(norm_layer=norm)
    assert not model.body._forward_pre_hooks
    if norm != "sync_bn":  # which trains on GPUs only
        assert warned(model.train(), torch.rand(2, 3, 64, 64)) == 0
    assert not configured(WIDTH_PER_GROUP=32, STEM_OUT_CHANNELS=32, **GROUP_NORM)._forward_pre_hooks


def test_not_at_construction_nor_by_loading_pretrained_weights():
    state = narrow_fpn().body.state_dict()
    state["bn1.running_var"] = torch.rand(8) + 0.5

    def build_and_step():
        narrow_fpn(weights=state).train()(x())

    assert warned(narrow_fpn) == warned(build_and_step) == 0


def test_copies_warn_for_themselves():
    model = narrow_fpn()
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    assert [warned(each, x()) for each in (model, *copies)] == [1, 1, 1]
    assert [warned(each, x()) for each in (model, *copies)] == [0, 0, 0]
    assert not checks(pickle.loads(pickle.dumps(model)).body)


def test_compiles_to_one_graph_and_warns_in_eager(native):
    model = narrow_fpn()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert warned(compiled, x()) == 0  # a value cannot be looked at in a graph
    assert warned(model, x()) == 1
    assert warned(compiled, x()) == 0
    torch._dynamo.reset()


@pytest.mark.parametrize("strict", [False, True])
def test_export_does_not_warn(strict, native):
    model = narrow_fpn()
    assert warned(lambda: torch.export.export(model, (x(),), strict=strict)) == 0
    assert warned(model, x()) == 1


def test_values_that_cannot_be_read_break_nothing():
    with torch.device("meta"):
        model = narrow_fpn()
        assert warned(model, x()) == 0
    model = narrow_fpn()
    buffers = dict(model.named_buffers()) | dict(model.named_parameters())
    assert warned(lambda: torch.func.functional_call(model, buffers, (x(),))) == 1
    model = narrow_fpn()
    batched = torch.rand(2, 1, 3, 32, 32)
    torch.func.vmap(lambda image: model.body.conv1(image))(batched)
    body = nn.Sequential(FrozenBatchNorm2d(3))
    norm_statistics_warning.warn_at_first_training_step(body)
    stacked = {name: torch.stack([value, value]) for name, value in body.named_buffers()}

    def ensemble(buffers, image):
        with torch.no_grad():
            norm_statistics_warning._check(body, (image,))
        return image.sum()

    torch.func.vmap(ensemble, in_dims=(0, None))(stacked, x())
    assert checks(body)


def test_data_parallel_warns_once(tmp_path):
    with one_process_group(tmp_path):
        model = nn.parallel.DistributedDataParallel(narrow_fpn(trainable_layers=5))

        def step():
            sum(level.sum() for level in model(x()).values()).backward()

        assert [warned(step), warned(step)] == [1, 0]


def test_symbolic_traces_do_not_warn():
    """torchvision's create_feature_extractor traces in training mode, too, whatever mode the network is in."""
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = narrow_fpn().eval()
    assert warned(lambda: extraction.create_feature_extractor(model, {"body.layer1": "c2"})) == 0
    assert warned(lambda: torch.fx.symbolic_trace(model.train())) == 0
    assert warned(model, x()) == 1


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = FrozenBatchNorm2d(1)
        self.norm.weight.fill_(2)  # statistics of its own
        norm_statistics_warning.warn_at_first_training_step(self)

    def forward(self, x):
        return x


def test_first_steps_of_several_threads_at_once():
    """Where a thread removes a hook while torch goes through the hooks in another, torch fails there."""
    bodies = [Small() for _ in range(2000)]
    image = torch.zeros(1)
    in_threads(8, lambda _: [body(image) for body in bodies])
    assert not any(map(checks, bodies))


def test_without_a_gil_the_hook_stays_and_does_nothing_any_more(monkeypatch):
    monkeypatch.setattr(norm_statistics_warning, "has_gil", lambda: False)
    body = narrow_fpn().body.train()
    hooks = dict(body._forward_pre_hooks)
    assert [warned(body, x()) for _ in range(2)] == [1, 0]
    assert body._forward_pre_hooks == hooks and not checks(body)


def test_several_threads_may_take_the_first_step():
    """Replicas of DataParallel share their hooks: one takes the check away, the others find it gone."""

    class Hooks(dict):
        def items(self):
            taken = list(super().items())
            self.clear()  # by another thread, in the meantime
            return taken

    body = narrow_fpn().body.train()
    body._forward_pre_hooks = Hooks(body._forward_pre_hooks)
    with pytest.warns(UserWarning, match="never given statistics"):
        norm_statistics_warning._check_once(body, ())
