"""Choosing the implementation: function, context manager, environment variable."""

import os
import signal

import pytest
import torch
from helpers.processes import run_python
from helpers.threads import in_threads

from resnet_cuda import _backend, backend, ops, use_backend

ALLOWED = r"'auto', 'native', 'reference'"


def test_the_chosen_name_is_reported(registered):
    use_backend("reference")
    assert backend() == "reference"
    use_backend("native")
    assert backend() == "native"
    use_backend("reference")
    use_backend("auto")
    assert backend() == "native", "auto takes what is built"


def test_context_manager_restores(registered):
    use_backend("native")
    with use_backend("reference"):
        assert backend() == "reference"
        with use_backend("auto"):
            assert backend() == "native"
            with use_backend("native"):
                assert backend() == "native"
        assert backend() == "reference"
    assert backend() == "native"


def fail_inside(name, error):
    with use_backend(name):
        assert backend() == name
        raise error


def test_context_manager_restores_after_an_exception(registered):
    use_backend("native")
    with use_backend("reference"):
        with pytest.raises(KeyError):
            fail_inside("native", KeyError)
        assert backend() == "reference"
    with pytest.raises(ZeroDivisionError):
        fail_inside("reference", ZeroDivisionError)
    assert backend() == "native"


def elsewhere(function, *arguments):
    """The call in another thread."""
    return in_threads(1, lambda _: function(*arguments))[0]


def test_blocks_of_two_threads_may_end_in_any_order(registered):
    """Of each block its call, its begin and its end, in an order in which two threads may run them."""
    for begin_late in (False, True):
        use_backend("native")
        here = use_backend("reference")
        there = elsewhere(use_backend, "native")
        if not begin_late:
            elsewhere(there.__enter__)
        here.__enter__()
        here.__exit__(None, None, None)
        assert backend() == "native", "the other block has not ended"
        if begin_late:
            elsewhere(there.__enter__)
        elsewhere(there.__exit__, None, None, None)
        assert backend() == "native", "what was chosen before both, not the block that ended first"


def test_three_blocks_of_threads_that_end_in_their_order(registered):
    use_backend("reference")
    blocks = [elsewhere(lambda name: use_backend(name).__enter__(), name) for name in ("native", "reference", "native")]
    seen = []
    for block in blocks:
        elsewhere(block.__exit__, None, None, None)
        seen.append(backend())
    assert seen == ["native", "native", "reference"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_process_that_was_forked_while_another_thread_was_choosing():
    """That thread, and what it would release, are missing in it."""
    with _backend._lock:  # as by another thread
        process = os.fork()
        if not process:
            signal.alarm(20)
            with use_backend("reference"):
                os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 3


def test_a_choice_within_a_block_ends_with_it(registered):
    use_backend("reference")
    with use_backend("native"):
        kept = use_backend("auto")
    assert backend() == "reference", kept


def test_a_refused_name_changes_nothing():
    use_backend("reference")
    for wrong in ("cuda", "Native", "", None, 1):
        with pytest.raises(ValueError, match=rf"use_backend: .*{wrong!r}.*{ALLOWED}"):
            use_backend(wrong)
        assert backend() == "reference"


def test_the_choice_is_what_runs(registered):
    """Told apart by the function that autograd remembers."""
    input, weight = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(3, 2, 3, 3)
    offset = torch.zeros(1, 18, 2, 2)
    names = {}
    for name in ("native", "reference"):
        with use_backend(name):
            names[name] = type(ops.deform_conv2d(input, offset, weight).grad_fn).__name__
    assert "DeformConv" in names["native"]
    assert "DeformConv" not in names["reference"]


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [
        ({"RESNET_CUDA_BACKEND": "reference"}, "reference"),
        ({"RESNET_CUDA_BACKEND": "native"}, "native"),
        ({"RESNET_CUDA_BACKEND": "auto"}, "native"),
        ({"RESNET_CUDA_BACKEND": ""}, "native"),
        ({}, "native"),
    ],
    ids=str,
)
def test_the_environment_variable_chooses(variables, chosen, registered):
    result = run_python("-c", "import resnet_cuda; print(resnet_cuda.backend())", **variables)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == chosen


def test_a_bad_environment_variable_is_named():
    result = run_python("-c", "import resnet_cuda", RESNET_CUDA_BACKEND="fast")
    assert result.returncode != 0
    for text in ("RESNET_CUDA_BACKEND", "'fast'", "'reference'"):
        assert text in result.stderr


WITHOUT_EXTENSION = """
import sys, warnings
sys.modules['resnet_cuda._C'] = None
warnings.simplefilter('always')
with warnings.catch_warnings(record=True) as caught:
    import resnet_cuda, torch
    y = resnet_cuda.ops.frozen_bn_relu(torch.ones(1, 1, 1, 1), torch.ones(1), torch.ones(1))
print(resnet_cuda.backend(), y.item(), sum('resnet_cuda' in str(w.message) for w in caught))
try:
    resnet_cuda.use_backend('native')
except RuntimeError as error:
    print('refused:', error)
print(resnet_cuda.backend())
"""


def test_without_the_extension_it_is_the_reference_with_one_warning():
    """Here as well as in tests/packaging, which does not run under every torch of ``make matrix``."""
    result = run_python("-c", WITHOUT_EXTENSION)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "reference 2.0 1"
    assert lines[1].startswith("refused: use_backend: 'native' was asked for")
    assert lines[2] == "reference"
