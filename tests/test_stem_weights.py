"""A pretrained stem for other channels: timm's rule."""

from __future__ import annotations

import pytest
import torch

from resnet_cuda.stem_weights import adapt_stem_weight


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7, 13])
def test_equals_timms(channels, dtype):
    manipulate = pytest.importorskip("timm.models._manipulate", reason="compares with timm")
    weight = torch.randn(4, 3, 7, 7).to(dtype)
    before = weight.clone()
    got = adapt_stem_weight(weight, channels)
    assert got.dtype == dtype
    assert got.shape == (4, channels, 7, 7)
    expected = manipulate.adapt_input_conv(channels, weight.clone())
    if dtype == torch.float64:  # timm's rounds it to float32
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    else:
        assert torch.equal(got, expected)
    assert torch.equal(weight, before)


def test_values():
    weight = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    assert adapt_stem_weight(weight, 3) is weight
    assert adapt_stem_weight(weight, 1).flatten().tolist() == [111]
    assert adapt_stem_weight(weight, 2).flatten().tolist() == [1.5, 15]
    assert adapt_stem_weight(weight, 4).flatten().tolist() == [0.75, 7.5, 75, 0.75]
    assert adapt_stem_weight(weight, 6).flatten().tolist() == [0.5, 5, 50, 0.5, 5, 50]
    assert adapt_stem_weight(weight[:, :2], 3).flatten().tolist() == pytest.approx([2 / 3, 20 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("weight", "channels", "message"),
    [
        (torch.randn(4, 3, 7, 7), 0, "in_channels is 0; it must be at least 1"),
        (torch.randn(4, 3, 7, 7), True, "in_channels is True; it must be an integer"),
        (torch.randn(4, 3, 7), 1, r"weight is of shape \(4, 3, 7\), torch.float32; it must be a floating-point tensor"),
        (torch.zeros(4, 3, 7, 7, dtype=torch.int64), 1, r"weight is of shape .*, torch.int64; it must be"),
        (torch.randn(4, 0, 7, 7), 1, r"weight is of shape \(4, 0, 7, 7\)"),
        ([1], 1, r"weight is \[1\]; it must be"),
    ],
)
def test_wrong_arguments_are_named(weight, channels, message):
    with pytest.raises(ValueError, match=f"adapt_stem_weight: {message}"):
        adapt_stem_weight(weight, channels)
