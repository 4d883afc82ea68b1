"""The report's numbers are those of pycocotools on a clean JSON file, to the last bits."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from detection.data.coco_dataset import CocoInstances
from detection.evaluation.evaluate import evaluate
from evaluation_samples import CPU, Detector, InMemory, options_for, random_answer, random_samples, score
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100")
CATEGORY_IDS = [4, 9, 31]


def write_json(path, dataset):
    """An instances file as COCO's own: ids from 1 on, areas, crowds; categories with gaps."""
    images, annotations = [], []
    for image, target in dataset.samples:
        images.append({"id": target["image_id"], "height": image.shape[1], "width": image.shape[2]})
        for mask, box, label, crowd in zip(
            target["masks"], target["boxes"].tolist(), target["labels"], target["iscrowd"], strict=True
        ):
            rle = coco_mask.encode(np.asfortranarray(mask.numpy()))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": target["image_id"],
                    "category_id": CATEGORY_IDS[int(label) - 1],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "area": float(mask.sum()),
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": category, "name": name} for category, name in zip(CATEGORY_IDS, dataset.names, strict=True)]
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": categories}))


def run_pycocotools(path, results, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_detections_score_as_with_pycocotools(tmp_path, seed):
    dataset = InMemory(random_samples(seed))
    dataset.category_ids = CATEGORY_IDS
    write_json(tmp_path / "instances.json", dataset)
    report = score(dataset, random_answer(seed), keep_results=True)
    results = json.loads(json.dumps(report.results))
    for kind, left_out in (("bbox", "segmentation"), ("segm", "bbox")):
        of_kind = [{name: value for name, value in it.items() if name != left_out} for it in results]
        evaluation = run_pycocotools(tmp_path / "instances.json", of_kind, kind)
        for name, expected in zip(METRICS, evaluation.stats, strict=False):
            assert 0.01 < expected < 0.99, name  # a value that could be missed
            assert abs(report.metrics[kind][name] - expected) < 1e-12, (kind, name)
        precision = evaluation.eval["precision"]
        for number, name in enumerate(dataset.names):
            of_class = report.per_class[kind][name]
            assert abs(of_class["AP"] - precision[:, :, number, 0, 2].mean()) < 1e-12
            assert abs(of_class["AP50"] - precision[0, :, number, 0, 2].mean()) < 1e-12
            objects = sum(
                int(((target["labels"] == number + 1) & (target["iscrowd"] == 0)).sum())
                for _, target in dataset.samples
            )
            assert of_class["objects"] == objects > 0


def write_polygons(folder):
    """Polygons with fractional corners, boxes and areas as COCO's, crowds as run lengths."""
    generator = np.random.default_rng(4)
    size = (200, 240)
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(12):
        pixels = generator.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": 1000 - number, "file_name": f"{number}.png", "height": size[0], "width": size[1]})
        for _ in range(int(generator.integers(1, 8))):
            angles = np.sort(generator.uniform(0, 2 * np.pi, 12))
            radius = generator.choice([8, 14, 25, 60])
            centre = generator.uniform((radius + 2, radius + 2), (size[1] - radius - 2, size[0] - radius - 2))
            corners = (centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)).round(2)
            low, high = corners.min(axis=0), corners.max(axis=0)
            x, y = corners.T
            annotation = {
                "id": len(annotations) + 1,
                "image_id": 1000 - number,
                "category_id": int(generator.choice(CATEGORY_IDS)),
                "bbox": np.concatenate([low, high - low]).round(2).tolist(),
                "segmentation": [corners.flatten().tolist()],
                "area": abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2,
                "iscrowd": 0,
            }
            if generator.uniform() < 0.15:
                mask = coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], *size))[..., 0]
                flat = mask.T.flatten()
                changes = np.flatnonzero(np.diff(flat)) + 1
                counts = np.diff([0, *changes.tolist(), flat.size]).tolist()
                annotation.update(iscrowd=1, segmentation={"size": list(size), "counts": counts})
            annotations.append(annotation)
    categories = [{"id": category, "name": f"class {category}"} for category in CATEGORY_IDS]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "images", folder / "instances.json"


def test_results_score_against_the_users_json_as_reported(tmp_path):
    """The whole way from image files and polygons; the numbers are those of COCO's own evaluation of the file."""
    dataset = CocoInstances(*write_polygons(tmp_path))
    samples = [dataset[index] for index in range(len(dataset))]
    detector = Detector(samples, random_answer(7))
    options = options_for(names=tuple(dataset.class_names()))
    report = evaluate(detector, dataset, CPU, options=options, keep_results=True)
    results = json.loads(json.dumps(report.results))
    for kind, left_out in (("bbox", "segmentation"), ("segm", "bbox")):
        of_kind = [{name: value for name, value in it.items() if name != left_out} for it in results]
        stats = run_pycocotools(dataset.annotations, of_kind, kind).stats
        assert 0.05 < stats[0] < 0.95
        for name, expected in zip(METRICS, stats, strict=False):
            assert abs(report.metrics[kind][name] - expected) < 1e-12, (kind, name)
