"""The programs behind docs/tutorials: what they measure, and the parts of the pages that they write."""

from __future__ import annotations

import importlib
import re
import sys

import pytest
import torch
from helpers.pages import DOCS, ROOT

import resnet_cuda

FOLDER = DOCS / "tutorials"


@pytest.fixture
def program(monkeypatch):
    """Imports one of the programs; afterwards sys.path and sys.modules are as before."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(FOLDER), str(ROOT), *sys.path])
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("accelerated", "sampling", "page_parts", "detection"):
            del sys.modules[name]


def test_a_part_of_a_page_is_replaced(program, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x -->\n\nold\n\n<!-- end of x -->\nb\n<!-- y -->\n<!-- end of y -->\n")
    program("page_parts").write_part(page, "x", "new \\1\n")
    assert page.read_text() == "a\n<!-- x -->\n\nnew \\1\n\n<!-- end of x -->\nb\n<!-- y -->\n<!-- end of y -->\n"
    with pytest.raises(ValueError, match="no part 'z'"):
        program("page_parts").write_part(page, "z", "")


def test_the_pages_have_the_parts_that_the_programs_write():
    for page, parts in (("sampling", ["figures"]), ("accelerated", ["times on cpu", "times on cuda", "reports"])):
        text = (FOLDER / f"{page}.md").read_text()
        assert re.findall(r"<!-- (?!end of)(.+?) -->", text) == parts
        assert re.findall(r"<!-- end of (.+?) -->", text) == parts
    assert "| `layer3.1.conv2` |" in (FOLDER / "sampling.md").read_text()


@pytest.mark.usefixtures("native")
class TestAccelerated:
    def make(self, accelerated):
        pytest.importorskip("torchvision")
        from torchvision.models import resnet18
        from torchvision.ops import FrozenBatchNorm2d

        return accelerated.randomised(resnet18(norm_layer=FrozenBatchNorm2d))

    def test_a_model_is_compared_and_timed(self, program):
        accelerated = program("accelerated")
        found = accelerated.measure(self.make(accelerated), torch.rand(1, 3, 64, 64), repeats=1, budget=1.0)
        assert set(found.milliseconds) == set(accelerated.STEPS)
        assert all(0 < it < 1e-4 for it in found.differences.values())
        assert "FrozenBatchNorm2d" in found.reports["accelerate"]
        assert "norms folded" in found.reports["optimize_for_inference"]
        row = accelerated.table({"mine": found}, "cpu").splitlines()[-1]
        assert len(re.findall(r"ms, \d\.\d\dx", row)) == 3

    def test_nothing_is_timed_without_repeats(self, program):
        accelerated = program("accelerated")
        found = accelerated.measure(self.make(accelerated), torch.rand(1, 3, 64, 64), repeats=0, budget=1.0)
        assert found.milliseconds == {}
        assert accelerated.table({"mine": found}, "cpu").count(accelerated.NOT_MEASURED) == 4

    def test_other_outputs_are_an_error(self, program, monkeypatch):
        """Nothing is timed then."""
        accelerated = program("accelerated")
        monkeypatch.setattr(accelerated.resnet_cuda, "accelerate", lambda it: torch.nn.init.zeros_(it.fc.weight))
        with pytest.raises(RuntimeError, match="accelerate: outputs differ"):
            accelerated.measure(self.make(accelerated), torch.rand(1, 3, 64, 64), repeats=1, budget=1.0)


class TestSampling:
    @pytest.fixture(autouse=True)
    def _needs(self):
        for name in ("torchvision", "pycocotools", "matplotlib", "skimage"):
            pytest.importorskip(name)

    def network(self):
        network = resnet_cuda.resnet_fpn_backbone("resnet18", dcn_stages=(False, True, True, True), width=8)
        for layer in resnet_cuda.deformable_layers(network).values():
            torch.nn.init.normal_(layer.offset.weight)
        return network.eval()

    def test_places_on_a_mask(self, program):
        mask = torch.zeros(4, 6)
        mask[1, 2] = 1
        points = torch.tensor([[2.0, 1.0], [2.9, 1.9], [3.0, 1.0], [-1.0, 1.0], [2.0, 9.0]])
        assert program("sampling").inside(mask, points).tolist() == [True, True, False, False, False]

    def test_untrained_offsets_read_the_grid(self, program):
        sampling = program("sampling")
        network, image, masks = self.network(), torch.rand(3, 64, 96), torch.zeros(1, 64, 96)
        masks[0, 16:48, 24:72] = 1
        names = sampling.last_of_each_stage(network)
        assert [name.split(".")[1] for name in names] == ["layer2", "layer3", "layer4"]
        look, before = (
            sampling.observe_sampling(it, [image], names[0]) for it in (network, sampling.untrained_offsets(network))
        )
        regular, sampled = sampling.in_own_coin(before, masks)
        assert regular == pytest.approx(sampled)
        moved = sampling.in_own_coin(look, masks)
        assert moved[0] == pytest.approx(regular)
        assert moved[1] < regular - 0.05  # random offsets of several pixels lead out of a small coin
        assert sampling.read_where(before, before, masks) == pytest.approx((1.0, 1.0))
