"""Products of warpgroups, bulk copies and their barriers, emulated: small integers, so that results are exact."""

from __future__ import annotations

import pytest
import torch

from benchmarks.warpgroup_forms import FORMS, form_name, largest_error, operands, rounding_error


@pytest.mark.parametrize("form", FORMS, ids=form_name)
def test_product(emulated, form):
    """Four parts of 64 in two stages: each is used twice."""
    assert largest_error(emulated.warpgroup_product, form, 256) == 0


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("depth", [64, 192])
def test_in_any_order_of_threads_and_copies(emulated, monkeypatch, seed, depth):
    monkeypatch.setenv("RESNET_CUDA_EMULATION_SEED", str(seed))
    for form in (FORMS[0], FORMS[7], FORMS[-1]):
        assert largest_error(emulated.warpgroup_product, form, depth) == 0


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        (torch.zeros(128, 64).double(), torch.zeros(128, 64).double(), "a is torch.float64; it must be torch.bfloat16"),
        (torch.zeros(128, 48), torch.zeros(128, 48), "a is of shape (128, 48)"),
        (torch.zeros(64, 64).half(), torch.zeros(128, 64).half(), "a is of shape (64, 64)"),
        (torch.zeros(128, 65).half(), torch.zeros(128, 65).half(), "a is of shape (128, 65)"),
        (torch.zeros(128, 64).half(), torch.zeros(192, 64).half(), "b is of shape (192, 64)"),
        (torch.zeros(128, 64).half(), torch.zeros(128, 128).half(), "b is of shape (128, 128)"),
    ],
)
def test_bad_arguments(emulated, a, b, word):
    with pytest.raises(RuntimeError) as raised:
        emulated.warpgroup_product(a, b, False, False)
    assert f"warpgroup_product: {word}" in str(raised.value)


def test_tf32_has_one_form(emulated):
    a = torch.zeros(128, 32)
    for sides in ((True, False), (False, True)):
        with pytest.raises(RuntimeError, match="side_a or side_b is True; it must be False for float32"):
            emulated.warpgroup_product(a, a, *sides)


def test_rounding_to_tf32(emulated):
    assert rounding_error(emulated.warpgroup_product) == 0


def test_an_error_would_be_seen():
    a, b = operands(torch.bfloat16, 128, 256)
    assert len(a.unique(dim=0)) == 128 and len(b.unique(dim=0)) == 128 and len(a.unique(dim=1).t()) == 256

    def wrong(a, b, side_a, side_b):
        product = a.float() @ b.float().t()
        product[-1, -1] += 1
        return product

    assert largest_error(wrong, FORMS[0], 256) == 1
