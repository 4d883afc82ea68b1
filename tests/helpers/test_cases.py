"""The shared shapes: well-formed, unique, and covering what they are there to cover."""

import pytest
from helpers.cases import DEFORM_CASES, DEFORM_CASES_BY_NAME, NORM_CASES


def test_names_are_unique():
    assert len(DEFORM_CASES_BY_NAME) == len(DEFORM_CASES)
    assert len({case.name for case in NORM_CASES}) == len(NORM_CASES)


@pytest.mark.parametrize("case", DEFORM_CASES, ids=str)
def test_deform_case_is_a_valid_convolution(case):
    assert case.channels % case.groups == 0
    assert case.out_channels % case.groups == 0
    assert case.channels % case.offset_groups == 0
    assert min(case.out_size) >= 1


def covered(attribute):
    return {getattr(case, attribute) for case in DEFORM_CASES}


def test_deform_cases_cover_what_they_must():
    assert covered("groups") >= {1, 2, 32}
    assert any(case.groups == case.channels > 1 for case in DEFORM_CASES)
    assert covered("offset_groups") >= {1, 2, 4}
    assert any(case.groups > 1 and case.offset_groups > 1 for case in DEFORM_CASES)
    assert covered("kernel") >= {(1, 1), (3, 3), (5, 3), (2, 4)}
    assert covered("batch") >= {1, 2, 3}
    assert covered("channels") >= {1, 3, 7, 17, 33, 40}
    assert covered("out_channels") >= {1, 3, 7, 17, 33, 70}
    assert covered("size") >= {(1, 1), (37, 29)}
    assert covered("out_size") >= {(1, 1)}
    assert covered("mask") == covered("bias") == {True, False}
    for attribute in ("stride", "padding", "dilation"):
        assert any(pair[0] != pair[1] for pair in covered(attribute)), attribute
    assert any(case.size[0] < case.kernel[0] and case.size[1] < case.kernel[1] for case in DEFORM_CASES)


def test_norm_cases_cover_what_they_must():
    assert {(case.residual, case.relu) for case in NORM_CASES} == {(a, b) for a in (True, False) for b in (True, False)}
    assert {case.shape[1] for case in NORM_CASES} >= {1, 3, 7, 17, 33, 70}
