"""The comparison refuses what it must refuse: a helper that accepts everything makes every test above it worthless."""

import pytest
import torch
from helpers.compare import assert_bitwise_equal, assert_close, assert_gradients_present, error_budget

EPS = torch.finfo(torch.float32).eps


@pytest.fixture
def truth() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, dtype=torch.float64)


def compare(got, truth, **options):
    measured = [] if truth is None else [truth.float()]
    return assert_close(got, truth, measured, name="result", dtype=torch.float32, **options)


def test_accepts_the_rounded_truth(truth):
    assert compare(truth.float(), truth) <= 1.0


def test_budget_follows_the_measured_error(truth):
    scale = truth.abs().max().item()
    exact = error_budget(truth, [truth], EPS)
    rough = error_budget(truth, [truth, truth + 0.01], EPS)
    assert exact == pytest.approx(6 * EPS * scale)
    assert rough == pytest.approx(exact + 2 * 0.01)
    eps = torch.finfo(torch.bfloat16).eps
    assert error_budget(truth, [], eps) == pytest.approx(2 * eps * scale)


def test_rejects_one_wrong_value(truth):
    got = truth.float()
    got[1, 2, 3, 4] += 1e-4
    with pytest.raises(AssertionError, match=r"off by 0\.0001.*1 of 120 values, at \[\[1, 2, 3, 4\]\]"):
        compare(got, truth)


def test_rejects_all_zeros(truth):
    with pytest.raises(AssertionError, match="all zeros"):
        compare(torch.zeros_like(truth).float(), truth)


def test_rejects_zeros_even_where_both_agree():
    zeros = torch.zeros(2, 3)
    with pytest.raises(AssertionError, match="zeros only"):
        compare(zeros, zeros.double())
    compare(zeros, zeros.double(), trivial=True)


def test_rejects_an_empty_comparison():
    empty = torch.zeros(0, 3)
    with pytest.raises(AssertionError, match="empty"):
        compare(empty, empty.double())
    compare(empty, empty.double(), trivial=True)


def test_trivial_is_no_way_around_the_comparison(truth):
    with pytest.raises(AssertionError, match="was called trivial"):
        compare(truth.float(), truth, trivial=True)
    with pytest.raises(AssertionError, match="must be all zeros"):
        compare(torch.full((2,), 1e-30), torch.zeros(2).double(), trivial=True)
    with pytest.raises(AssertionError, match="must be all zeros"):
        compare(torch.full((2,), float("nan")), torch.zeros(2).double(), trivial=True)


def test_rejects_nan_that_is_not_expected(truth):
    got = truth.float()
    got[0, 1, 2, 3] = float("nan")
    with pytest.raises(AssertionError, match=r"NaN at \[\[0, 1, 2, 3\]\]"):
        compare(got, truth)


def test_rejects_a_missing_and_a_misplaced_nan(truth):
    got = truth.float()
    truth[0, 0, 0, 0] = float("nan")
    with pytest.raises(AssertionError, match="NaN"):
        compare(got, truth)
    got[0, 0, 0, 1] = float("nan")
    with pytest.raises(AssertionError, match="NaN"):
        compare(got, truth)


def test_accepts_nan_and_infinity_in_their_places(truth):
    truth[0, 0, 0, 0] = float("nan")
    truth[0, 0, 0, 1] = float("inf")
    assert compare(truth.float(), truth) <= 1.0


def test_nan_elsewhere_hides_no_error_and_no_zeros(truth):
    truth[0, 0, 0, 0] = float("nan")
    got = truth.float()
    got[1, 0, 0, 0] += 1e-4
    with pytest.raises(AssertionError, match="off by"):
        compare(got, truth)
    zeros = torch.zeros_like(got)
    zeros[0, 0, 0, 0] = float("nan")
    with pytest.raises(AssertionError, match="all zeros"):
        compare(zeros, truth)


def test_rejects_a_wrong_infinity(truth):
    truth[0, 0, 0, 1] = float("inf")
    for wrong in (-float("inf"), 1.0):
        got = truth.float()
        got[0, 0, 0, 1] = wrong
        with pytest.raises(AssertionError, match="infinities"):
            compare(got, truth)
    got = truth.float()
    got[1, 1, 1, 1] = float("inf")
    with pytest.raises(AssertionError, match="infinities"):
        compare(got, truth)


def test_rejects_a_wrong_dtype(truth):
    with pytest.raises(AssertionError, match=r"float64, expected torch\.float32"):
        compare(truth, truth)


def test_rejects_a_wrong_shape(truth):
    with pytest.raises(AssertionError, match="shape"):
        compare(truth.float().mT, truth)
    with pytest.raises(AssertionError, match="shape"):  # would broadcast
        compare(truth.float()[:1], truth)


def test_rejects_a_wrong_memory_format(truth):
    with pytest.raises(AssertionError, match="strides"):
        compare(truth.float(), truth, memory_format=torch.channels_last)
    last = truth.float().contiguous(memory_format=torch.channels_last)
    assert compare(last, truth, memory_format=torch.channels_last) <= 1.0


def test_rejects_a_missing_result(truth):
    with pytest.raises(AssertionError, match="missing"):
        compare(None, truth)


def test_rejects_a_missing_gradient_and_one_that_nobody_asked_for():
    gradient = torch.ones(1)
    assert_gradients_present({"input": gradient, "mask": None}, ["input"])
    with pytest.raises(AssertionError, match="expected for"):
        assert_gradients_present({"input": gradient, "mask": None}, ["input", "mask"])
    with pytest.raises(AssertionError, match="expected for"):
        assert_gradients_present({"input": gradient, "mask": gradient}, ["input"])


def test_refuses_a_budget_that_would_accept_anything(truth):
    with pytest.raises(AssertionError, match="no test of values"):
        error_budget(truth, [truth + truth.abs().max()], EPS)


def test_bitwise_equality():
    one = torch.tensor([1.0, float("nan"), 0.0])
    assert_bitwise_equal(one.clone(), one, "result")
    with pytest.raises(AssertionError, match=r"differs at \[\[0\], \[2\]\]"):
        assert_bitwise_equal(torch.nextafter(one, torch.tensor(2.0)), one, "result")
    with pytest.raises(AssertionError, match=r"differs at \[\[1\]\]"):
        assert_bitwise_equal(torch.tensor([1.0, 2.0, 0.0]), one, "result")
    with pytest.raises(AssertionError, match="shape"):
        assert_bitwise_equal(one[:1], one, "result")
    with pytest.raises(AssertionError, match="expected"):
        assert_bitwise_equal(one.double(), one, "result")
