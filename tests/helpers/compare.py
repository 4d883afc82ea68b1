"""The comparison rule of all operator tests: an error budget that is measured and not chosen.

Truth is the reference in float64. The reference runs again in the tested dtype, in another order of operations; what it
is off by is what rounding costs in this very problem. The tested result may be off by twice that, plus a few units in
the last place of the largest value for the problems in which the measurement was lucky.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MEASURED_FACTOR = 2.0
# A 16-bit result is rounded once from float32, and the measurement holds that; sums in the tested dtype vary more.
ROUNDING_UNITS = 6.0
ROUNDING_UNITS_16_BIT = 2.0
# A budget this large, relative to the largest value, would accept wrong results.
LARGEST_RELATIVE_BUDGET = 0.125


def error_budget(truth: Tensor, measured: Sequence[Tensor], eps: float) -> float:
    """The largest allowed difference from ``truth`` (float64), in the units of ``truth``.

    Args:
        truth: the right values; only the finite ones count.
        measured: the same values as computed by the reference in the tested dtype.
        eps: relative spacing of the tested dtype.

    Raises:
        AssertionError: where the budget would be too large to refuse anything.
    """
    finite = torch.isfinite(truth)
    if not finite.any():
        return 0.0
    scale = truth[finite].abs().max().item()
    off_by = max(((one.detach().cpu().double() - truth)[finite].abs().max().item() for one in measured), default=0.0)
    units = ROUNDING_UNITS if eps < torch.finfo(torch.float16).eps else ROUNDING_UNITS_16_BIT
    budget = MEASURED_FACTOR * off_by + units * eps * scale
    assert budget <= LARGEST_RELATIVE_BUDGET * scale, (
        f"the budget {budget:.3g} is no test of values up to {scale:.3g}: the reference itself is off by {off_by:.3g}"
    )
    return budget


def assert_close(
    got: Tensor,
    truth: Tensor,
    measured: Sequence[Tensor],
    *,
    name: str,
    dtype: torch.dtype,
    eps: float | None = None,
    memory_format: torch.memory_format | None = None,
    trivial: bool = False,
) -> float:
    """Checks ``got`` against ``truth`` (float64, on the CPU) and returns the used part of the budget (0 to 1).

    Args:
        got: the tested result, on any device.
        truth: the right values.
        measured: results of the reference in the tested dtype, each in another order of operations.
        name: what is compared, for the message.
        dtype: what ``got`` must be of.
        eps: relative spacing of the coarsest dtype in the computation; that of ``dtype`` where not given.
        memory_format: the layout that ``got`` must have.
        trivial: the right answer is empty or all zeros. Without it such an answer is refused, as it proves nothing.

    Raises:
        AssertionError: for a wrong type, dtype, shape, layout or value, or a NaN or infinity that is not in ``truth``.
    """
    assert isinstance(got, Tensor), f"{name} is missing: {got!r}"
    assert got.dtype == dtype, f"{name} is {got.dtype}, expected {dtype}"
    assert got.shape == truth.shape, f"{name} has shape {tuple(got.shape)}, expected {tuple(truth.shape)}"
    if memory_format is not None:
        assert got.is_contiguous(memory_format=memory_format), f"{name} has strides {got.stride()}, not {memory_format}"
    values = got.detach().cpu().double()
    if trivial:
        assert not truth.any(), f"{name} was called trivial, but its truth has non-zero values"
        assert not values.any(), f"{name} must be all zeros, is up to {values.abs().max()}"
        return 0.0
    assert truth.numel() > 0, f"{name} is empty: nothing would be compared"
    assert truth.any(), f"{name} has a truth of zeros only: nothing would be compared"
    assert torch.equal(values.isnan(), truth.isnan()), f"{name} has NaN {_places(values.isnan() ^ truth.isnan())}"
    infinite = truth.isinf() | values.isinf()
    assert torch.equal(values[infinite], truth[infinite]), f"{name} has infinities {_places(infinite)}"
    finite = torch.isfinite(truth)
    if not finite.any():
        return 0.0
    assert not truth[finite].any() or values[finite].any(), f"{name} is all zeros"

    budget = error_budget(truth, measured, torch.finfo(dtype).eps if eps is None else eps)
    difference = torch.where(finite, (values - truth).abs(), 0.0)
    worst = difference.max().item()
    assert worst <= budget, (
        f"{name} is off by {worst:.4g} where {budget:.4g} is allowed, "
        f"{int((difference > budget).sum())} of {difference.numel()} values, {_places(difference == worst)}: "
        f"{values[difference == worst][0]:.9g} is not {truth[difference == worst][0]:.9g}"
    )
    return worst / budget if budget > 0 else 0.0


def assert_gradients_present(got: Mapping[str, Tensor | None], wanted: Sequence[str]) -> None:
    """Checks that exactly the gradients in ``wanted`` are there: none missing, none that nobody asked for."""
    present = sorted(name for name, gradient in got.items() if gradient is not None)
    assert present == sorted(wanted), f"gradients for {present}, expected for {sorted(wanted)}"


def assert_bitwise_equal(got: Tensor, expected: Tensor, name: str) -> None:
    """Checks dtype, shape and every bit of the values but the sign of zero; NaN equals NaN."""
    assert got.dtype == expected.dtype, f"{name} is {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"{name} has shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    same = (got == expected) | (got.isnan() & expected.isnan())
    assert same.all(), f"{name} differs {_places(~same)}"


def _places(where: Tensor) -> str:
    indices = where.nonzero().tolist()
    return f"at {indices[:3]}{' …' if len(indices) > 3 else ''}"
