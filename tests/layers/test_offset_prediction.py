"""Splitting a prediction into offsets and mask, and what a graph keeps of it."""

import pytest
import torch

from resnet_cuda.layers.offset_prediction import split_prediction


@pytest.mark.parametrize("needs_gradient", [True, False])
def test_values_and_what_is_kept(needs_gradient):
    predicted = torch.randn(2, 54, 3, 4, requires_grad=needs_gradient)
    offset, mask = split_prediction(predicted, True)
    assert torch.equal(offset, predicted[:, :36])
    assert torch.equal(mask, predicted[:, 36:].sigmoid())
    # A graph that saves the offsets must not keep the logits alive with them.
    shares = offset.untyped_storage().data_ptr() == predicted.untyped_storage().data_ptr()
    assert shares is not needs_gradient
    if needs_gradient:
        (offset.sum() + mask.sum()).backward()
        assert torch.equal(predicted.grad[:, :36], torch.ones(2, 36, 3, 4))
        torch.testing.assert_close(predicted.grad[:, 36:], mask.detach() * (1 - mask.detach()))


def test_without_masks():
    predicted = torch.randn(1, 18, 3, 4, requires_grad=True)
    offset, mask = split_prediction(predicted, False)
    assert offset is predicted and mask is None


def test_scripted():
    predicted = torch.randn(1, 27, 3, 4)
    for found, expected in zip(
        torch.jit.script(split_prediction)(predicted, True), split_prediction(predicted, True), strict=True
    ):
        assert torch.equal(found, expected)
