"""What the deformable layers of the demo's network have learnt to sample.

    make demo                               # trains the network, some minutes
    python docs/tutorials/sampling.py       # figures and pictures into docs/tutorials/

The page docs/tutorials/sampling.md shows the output.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

from detection.data import coins  # noqa: E402
from detection.data.coco_dataset import CocoInstances  # noqa: E402
from detection.prediction.sampling_picture import draw_sampling  # noqa: E402
from detection.training.checkpoint import load_model  # noqa: E402
from page_parts import write_part  # noqa: E402

from resnet_cuda.layers import DFConv2d  # noqa: E402
from resnet_cuda.sampling import LayerSampling, deformable_layers, observe_sampling  # noqa: E402

NETWORK = Path("runs/coins/seed0/checkpoint.pt")
RIM = 4  # pixels on either side of a coin's border


def untrained_offsets(model: nn.Module) -> nn.Module:
    """A copy whose layers sample where they did before training: offsets 0, masks 0.5."""
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if isinstance(layer, DFConv2d):
            nn.init.zeros_(layer.offset.weight)
            nn.init.zeros_(layer.offset.bias)
    return copied


def last_of_each_stage(model: nn.Module) -> list[str]:
    """Of C3 to C5, the last deformable layer's name."""
    return list({name.split(".layer")[1][0]: name for name in deformable_layers(model)}.values())


def inside(mask: Tensor, points: Tensor) -> Tensor:
    """Whether ``points`` (..., 2) x, y are on ``mask`` (H, W); outside the image they are not."""
    x, y = points[..., 0].floor().long(), points[..., 1].floor().long()
    height, width = mask.shape
    in_image = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return in_image & mask[y.clamp(0, height - 1), x.clamp(0, width - 1)].bool()


def in_own_coin(look: LayerSampling, masks: Tensor) -> tuple[float, float]:
    """Of the taps of output pixels on a coin, the share that reads that coin: by the regular grid, and as sampled.

    Args:
        look: a layer's sampling of one image.
        masks: (n, H, W), one coin each.
    """
    regular, sampled, count = 0.0, 0.0, 0
    for mask in masks:
        rows, columns = mask.nonzero(as_tuple=True)
        places = torch.stack([columns, rows], dim=1).float() + 0.5
        found = look.points(places[:: max(1, len(places) // 200)])
        regular += float(inside(mask, found.grid).float().mean(dim=1).sum())
        sampled += float((inside(mask, found.points) * found.masks).sum(-1).div(found.masks.sum(-1)).mean(1).sum())
        count += len(found.grid)
    return regular / count, sampled / count


def read_where(look: LayerSampling, before: LayerSampling, masks: Tensor) -> tuple[float, float]:
    """How strongly the coins' rims, and their insides, are read, over the background: after training over before."""
    coin = masks.amax(0).float()
    window = 2 * RIM + 1
    grown = F.max_pool2d(coin[None, None], window, stride=1, padding=RIM)[0, 0]
    shrunk = -F.max_pool2d(-coin[None, None], window, stride=1, padding=RIM)[0, 0]
    parts = {"background": grown == 0, "rim": (grown == 1) & (shrunk == 0), "inside": shrunk == 1}
    gain = {name: float(look.density()[part].mean() / before.density()[part].mean()) for name, part in parts.items()}
    return gain["rim"] / gain["background"], gain["inside"] / gain["background"]


def figures(model: nn.Module, image: Tensor, masks: Tensor) -> str:
    """A line per layer, as a Markdown table."""
    lines = [
        "| layer | stride | taps move by | masks | on the same coin: grid | sampled | rim is read | inside is read |",
        "|---|---|---|---|---|---|---|---|",
    ]
    untrained = untrained_offsets(model)
    everywhere = torch.cartesian_prod(torch.arange(4.0, image.shape[2], 8), torch.arange(4.0, image.shape[1], 8))
    for name in last_of_each_stage(model):
        look = observe_sampling(model, [image], name)
        found = look.points(everywhere)
        moved = (found.points - found.grid[:, None]).norm(dim=-1)
        low, high = found.masks.quantile(torch.tensor([0.05, 0.95])).tolist()
        before, after = in_own_coin(look, masks)
        rim, middle = read_where(look, observe_sampling(untrained, [image], name), masks)
        short = name.removeprefix("backbone.body.")
        stride = f"{look.strides()[0]:.1f}"
        lines.append(
            f"| `{short}` | {stride} px | {float(moved.mean()):.1f} px | {low:.2f} to {high:.2f} "
            f"| {before:.0%} | {after:.0%} | {rim:.2f}x | {middle:.2f}x |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=NETWORK, help=f"(default: {NETWORK}, of make demo)")
    parser.add_argument("--data", type=Path, default=Path("runs/coins/data"), help="where the coins are, or are made")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the pictures (default: beside this file)")
    chosen = parser.parse_args(arguments)

    model, _ = load_model(chosen.checkpoint, torch.device("cpu"))
    held_out = coins.make(chosen.data)["val"]
    image, target = CocoInstances(held_out.images, held_out.annotations)[0]
    boxes = target["boxes"]
    centres = torch.stack([boxes[:, [0, 2]].mean(1), boxes[:, [1, 3]].mean(1)], dim=1)

    text = figures(model, image, target["masks"])
    chosen.output.mkdir(parents=True, exist_ok=True)
    print(text)
    if chosen.output == HERE:
        write_part(HERE / "sampling.md", "figures", text)
    names = {name.split(".layer")[1][0]: name for name in last_of_each_stage(model)}
    draw(chosen.output / "sampling-before.jpg", image, untrained_offsets(model), names["3"], centres)
    for stage, name in names.items():
        draw(chosen.output / f"sampling-layer{stage}.jpg", image, model, name, centres)
    return 0


def draw(path: Path, image: Tensor, model: nn.Module, name: str, centres: Tensor) -> None:
    """As JPEG: a photograph as PNG would be four times as large."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.png"
        draw_sampling(drawn, image, model, name, centres)
        Image.open(drawn).convert("RGB").save(path, quality=88, subsampling=0, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main())
