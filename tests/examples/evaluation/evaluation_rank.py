"""One of several processes that evaluate together: python evaluation_rank.py RANK RANKS FOLDER plain|sharded.

Writes FOLDER/RANK.json: the report, its results, and how often the model was called.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch
import torch.distributed as dist
from detection.data.errors import DamagedSampleError
from detection.evaluation.evaluate import evaluate
from evaluation_samples import CPU, Detector, InMemory, options_for, random_answer, random_samples
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

IMAGES = 9  # of which those of SKIPPED are damaged: rank 1 of 2 has fewer images in any case
SKIPPED = (3, 5)


class Damaged(InMemory):
    damaged = "skip"

    def __getitem__(self, index: int) -> tuple:
        if index in SKIPPED:
            raise DamagedSampleError(f"image {index} cannot be read")
        return self.samples[index]


class Sharded(Detector):
    """Uses a parameter of which each rank has a part, as FSDP2 has it: every call needs all ranks."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.convolution = nn.Conv2d(3, 4, 1)
        self.calls = 0

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.calls += 1
        self.convolution(images[0][None])
        nothing = {name: value[:0] for name, value in next(iter(self.answers.values())).items()}
        return [self.answers.get(image.numpy().tobytes(), nothing) for image in images]


def dataset_and_model() -> tuple[InMemory, Sharded]:
    dataset = Damaged(random_samples(5, images=IMAGES))
    regions = {"ignored_boxes": torch.tensor([[0.0, 0, 90, 90]]), "ignored_labels": torch.tensor([2])}
    dataset.samples[4][1].update(skipped=2, dropped=1, **regions)
    return dataset, Sharded(dataset.samples, random_answer(5))


def main(rank: str, ranks: str, folder: str, how: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    store = (Path(folder) / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=int(rank), world_size=int(ranks))
    dataset, model = dataset_and_model()
    if how == "sharded":
        mesh = init_device_mesh("cpu", (int(ranks),))
        fully_shard(model.convolution, mesh=mesh)  # gathered anew at each call, which the outermost module is not
        fully_shard(model, mesh=mesh)
    report = evaluate(model, dataset, CPU, options=options_for(), keep_results=True)
    content = {"report": report.as_dict(), "results": report.results, "calls": model.calls}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(content))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
