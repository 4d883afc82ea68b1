"""The comparison refuses what it must refuse: a helper that accepts everything makes every test above it worthless."""

import pytest
import torch
from helpers.compare import assert_bitwise_equal, assert_close, assert_gradients_present, error_budget

EPS = torch.finfo(torch.float32).eps
NAN, INFINITY = float("nan"), float("inf")
FIRST, LAST = (0, 0, 0, 0), (1, 2, 3, 4)


@pytest.fixture
def truth():
    return torch.randn(2, 3, 4, 5, dtype=torch.float64)


def compare(got, truth, **options):
    return assert_close(got, truth, [truth.float()], name="result", dtype=torch.float32, **options)


def changed(tensor, values):
    result = tensor.clone()
    for place, value in values.items():
        result[place] = value
    return result


def test_the_budget_follows_the_measured_error(truth):
    scale = truth.abs().max().item()
    exact = error_budget(truth, [truth], EPS)
    assert exact == pytest.approx(6 * EPS * scale)
    assert error_budget(truth, [truth, truth + 0.01], EPS) == pytest.approx(exact + 2 * 0.01)
    eps = torch.finfo(torch.bfloat16).eps
    assert error_budget(truth, [], eps) == pytest.approx(2 * eps * scale)


def test_a_budget_that_would_accept_anything_is_refused(truth):
    with pytest.raises(AssertionError, match="no test of values"):
        error_budget(truth, [truth + truth.abs().max()], EPS)


@pytest.mark.parametrize("special", [{}, {FIRST: NAN, LAST: INFINITY}], ids=["finite", "not finite"])
def test_the_rounded_truth_is_accepted(truth, special):
    truth = changed(truth, special)
    assert compare(truth.float(), truth) <= 1
    last = truth.float().contiguous(memory_format=torch.channels_last)
    assert compare(last, truth, memory_format=torch.channels_last) <= 1


# what is written into the truth, what into the result, the message
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ({}, {LAST: 100.0}, r"off by .*1 of 120 values, at \[\[1, 2, 3, 4\]\]: 100 is not "),
        ({LAST: 1.0}, {LAST: 1.0001}, r"off by 0\.0001"),
        ({}, {...: 0.0}, "all zeros"),
        ({}, {LAST: NAN}, r"NaN at \[\[1, 2, 3, 4\]\]"),
        ({LAST: NAN}, {LAST: 1.0}, "NaN"),
        ({LAST: NAN}, {LAST: 1.0, FIRST: NAN}, "NaN"),
        ({LAST: INFINITY}, {LAST: -INFINITY}, "infinities"),
        ({LAST: INFINITY}, {LAST: 1.0}, "infinities"),
        ({}, {LAST: INFINITY}, "infinities"),
        # NaN elsewhere hides neither an error nor zeros
        ({FIRST: NAN}, {LAST: 100.0}, "off by"),
        ({FIRST: NAN}, {...: 0.0, FIRST: NAN}, "all zeros"),
    ],
)
def test_wrong_values_are_refused(truth, right, wrong, message):
    truth = changed(truth, right)
    with pytest.raises(AssertionError, match=message):
        compare(changed(truth.float(), wrong), truth)


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (lambda got: got.double(), {}, r"float64, expected torch\.float32"),
        (lambda got: got.mT, {}, "shape"),
        (lambda got: got[:1], {}, "shape"),  # would broadcast
        (lambda got: got, {"memory_format": torch.channels_last}, "strides"),
        (lambda got: None, {}, "missing"),
        (lambda got: got, {"trivial": True}, "was called trivial"),
    ],
)
def test_wrong_kinds_of_results_are_refused(truth, damage, options, message):
    with pytest.raises(AssertionError, match=message):
        compare(damage(truth.float()), truth, **options)


@pytest.mark.parametrize(("shape", "message"), [((2, 3), "zeros only"), ((0, 3), "empty")])
def test_a_comparison_of_nothing_is_refused_unless_called_trivial(shape, message):
    zeros = torch.zeros(shape)
    with pytest.raises(AssertionError, match=message):
        compare(zeros, zeros.double())
    compare(zeros, zeros.double(), trivial=True)


@pytest.mark.parametrize("value", [1e-30, NAN])
def test_a_trivial_result_must_be_zero(value):
    with pytest.raises(AssertionError, match="must be all zeros"):
        compare(torch.full((2,), value), torch.zeros(2).double(), trivial=True)


@pytest.mark.parametrize(("got", "wanted"), [("input", "input mask"), ("input mask", "input")])
def test_a_missing_gradient_and_one_too_many_are_refused(got, wanted):
    gradients = {name: torch.ones(1) if name in got else None for name in ("input", "mask")}
    assert_gradients_present(gradients, got.split())
    with pytest.raises(AssertionError, match="expected for"):
        assert_gradients_present(gradients, wanted.split())


def test_bitwise_equality():
    one = torch.tensor([1.0, NAN, 0.0])
    assert_bitwise_equal(one.clone(), one, "result")
    for wrong, message in (
        (torch.nextafter(one, torch.tensor(2.0)), r"differs at \[\[0\], \[2\]\]"),
        (torch.tensor([1.0, 2.0, 0.0]), r"differs at \[\[1\]\]"),
        (one[:1], "shape"),
        (one.double(), "expected"),
    ):
        with pytest.raises(AssertionError, match=message):
            assert_bitwise_equal(wrong, one, "result")
