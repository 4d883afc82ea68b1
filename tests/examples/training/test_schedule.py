"""Learning rate, groups of parameters, moving average."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detection.models.build import build_model
from detection.training.ema import WeightAverage
from detection.training.optimizer import make_optimizer, parameter_groups
from detection.training.options import TrainOptions
from detection.training.schedule import learning_rate, too_long_a_warmup
from training_support import MODEL

OPTIONS = TrainOptions(iterations=90, learning_rate=1.0, warmup=10)


def test_cosine_rises_then_falls_to_a_hundredth():
    rates = [learning_rate(OPTIONS, iteration) for iteration in range(91)]
    assert rates[:10] == pytest.approx([(number + 1) / 10 for number in range(10)])
    assert rates[10] == 1.0 and rates[50] == pytest.approx(0.505) and rates[90] == pytest.approx(0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_warm_up_from_a_factor():
    rates = [learning_rate(replace(OPTIONS, warmup_factor=0.5), iteration) for iteration in range(10)]
    assert rates == pytest.approx([0.55 + 0.05 * number for number in range(10)])


def test_a_short_run_reaches_its_learning_rate_by_default():
    rates = [learning_rate(TrainOptions(iterations=100, learning_rate=1.0), it) for it in range(100)]
    assert max(rates) == 1.0 and rates[:2] == pytest.approx([0.1, 0.2])


def test_a_warm_up_to_the_very_end_is_a_sentence():
    sentence = too_long_a_warmup(TrainOptions(iterations=100, learning_rate=0.01, warmup=400))
    assert sentence == (
        "warning: warmup is 400, of 100 iterations in all: the learning rate rises to the very end, to 0.0025 of 0.01; "
        "give a shorter --warmup or more --iterations"
    )
    assert too_long_a_warmup(TrainOptions(iterations=100, warmup=100)).startswith("warning: warmup is 100, ")
    assert too_long_a_warmup(TrainOptions(iterations=100, warmup=99)) == ""
    assert too_long_a_warmup(TrainOptions(iterations=1)) == ""


def test_steps_at_milestones():
    step = replace(OPTIONS, schedule="step", gamma=0.5)
    assert [learning_rate(step, it) for it in (59, 60, 79, 80, 89)] == [1.0, 0.5, 0.5, 0.25, 0.25]  # 2/3 and 8/9
    step = replace(step, milestones=(20,))
    assert [learning_rate(step, it) for it in (19, 20, 89)] == [1.0, 0.5, 0.5]


def test_norms_may_have_a_weight_decay_of_their_own():
    model = build_model(replace(MODEL, norm="gn"))
    trained = [it for it in model.parameters() if it.requires_grad]
    (group,) = parameter_groups(model, OPTIONS)
    assert len(group["params"]) == len(trained)
    rest, norms = parameter_groups(model, replace(OPTIONS, weight_decay=0.1, norm_weight_decay=0.0))
    assert (rest["weight_decay"], norms["weight_decay"]) == (0.1, 0.0)
    expected = {
        id(it) for layer in model.modules() if isinstance(layer, torch.nn.GroupNorm) for it in layer.parameters()
    }
    assert {id(it) for it in norms["params"]} == expected and len(expected) > 10
    assert len(rest["params"]) + len(norms["params"]) == len(trained)


def test_only_what_requires_gradients_is_trained():
    model = build_model(replace(MODEL, trainable_layers=2))
    optimizer = make_optimizer(model, replace(OPTIONS, optimizer="sgd", momentum=0.5))
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.param_groups[0]["momentum"] == 0.5
    held = {id(it) for group in optimizer.param_groups for it in group["params"]}
    assert held == {id(it) for it in model.parameters() if it.requires_grad}
    assert all(id(it) not in held for it in model.backbone.body.layer1.parameters())
    for it in model.parameters():
        it.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that is trained"):
        make_optimizer(model, OPTIONS)


def test_the_average_is_the_textbooks():
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(1, 1))
    model[1].requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    expected = model[0].weight.detach().clone()
    for number in range(30):
        with torch.no_grad():
            model[0].weight += 1.0
        average.update(number)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    torch.testing.assert_close(average.state_dict()["0.weight"], expected)
    assert average.state_dict().keys() == {"0.weight", "0.bias"}
    other = WeightAverage(model, decay=0.5)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.state_dict()["0.weight"], average.state_dict()["0.weight"])
