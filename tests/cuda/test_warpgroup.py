"""wgmma, bulk copies and their barriers on a GPU: small integers, so that results are exact."""

import pytest
import torch
from helpers.gpu import NEEDS_GPU

forms = pytest.importorskip("benchmarks.warpgroup_forms", reason="the benchmarks are part of the checkout")
pytestmark = NEEDS_GPU


def test_rounding_to_tf32():
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    assert forms.rounding_error(torch.ops.resnet_cuda.warpgroup_product, "cuda") == 0


@pytest.mark.parametrize("depth", [64, 64 * 9])
@pytest.mark.parametrize("form", forms.FORMS, ids=forms.form_name)
def test_product(form, depth):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    assert forms.largest_error(torch.ops.resnet_cuda.warpgroup_product, form, depth, "cuda") == 0
