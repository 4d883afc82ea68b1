"""A second copy of the package in one process, as notebooks make by a purge of ``sys.modules`` and another path."""

from __future__ import annotations

import shutil

import pytest
from helpers.processes import PACKAGE, run_python
from helpers.without_libraries import copy_of_the_package

from resnet_cuda import _extension

needs_the_library = pytest.mark.skipif(not _extension.CPU_LOADED, reason="the package has no compiled part")

# Imports the copies of the command line one after the other and does "keep" or "drop" them; every one must compute.
IMPORTS = """
import gc, sys, warnings
import torch
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]
path = list(sys.path)
x, offset, weight = torch.randn(2, 4, 8, 8), torch.randn(2, 18, 8, 8), torch.randn(4, 4, 3, 3)
outputs, kept = [], []
for folder in sys.argv[2:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "resnet_cuda"]:
        del sys.modules[name]
    gc.collect()
    sys.path[:] = [folder, *path]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        import resnet_cuda
    assert resnet_cuda.__file__.startswith(folder)
    print(resnet_cuda.backend(), *(it.message for it in seen if str(it.message).startswith("resnet_cuda: ")))
    outputs.append(resnet_cuda.ops.deform_conv2d(x, offset, weight, padding=1))
    torch.testing.assert_close(outputs[0], outputs[-1])
    if sys.argv[1] == "keep":
        kept.append(sys.modules["resnet_cuda.ops"])
    del resnet_cuda
gc.collect()
torch.testing.assert_close(
    torch.ops.resnet_cuda.deform_conv2d(x, weight, offset, None, None, 1, 1, 1, 1, 1, 1), outputs[0]
)
"""


@pytest.fixture(params=["keep", "drop"])
def earlier(request):
    return request.param


def import_all(earlier, *folders, cwd):
    result = run_python("-c", IMPORTS, earlier, *folders, path=cwd, cwd=cwd)
    assert result.returncode == 0, (result.returncode, result.stdout, result.stderr)
    return result.stdout.splitlines()


def compiled_copy(folder):
    shutil.copy2(_extension.library(), copy_of_the_package(folder))
    return folder


@needs_the_library
def test_a_second_compiled_copy_is_not_loaded(earlier, tmp_path):
    other = compiled_copy(tmp_path / "other")
    first, second, third = import_all(earlier, PACKAGE.parent, other, PACKAGE.parent, cwd=tmp_path)
    assert first == third == "native"
    assert second.startswith("reference resnet_cuda: ") and str(other) in second
    assert "another copy of this package has registered its operators" in second and "Restart Python" in second


@needs_the_library
def test_a_compiled_copy_after_one_without_its_compiled_part(earlier, tmp_path):
    plain = copy_of_the_package(tmp_path / "plain").parent
    first, second = import_all(earlier, plain, compiled_copy(tmp_path / "other"), cwd=tmp_path)
    assert first.startswith("reference resnet_cuda: ")
    assert "another copy of this package has registered its operators" in second


def test_copies_without_their_compiled_part(earlier, tmp_path):
    plain = [copy_of_the_package(tmp_path / name).parent for name in ("one", "two")]
    assert len(import_all(earlier, plain[0], plain[0], plain[1], cwd=tmp_path)) == 3
