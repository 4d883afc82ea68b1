"""Files to results: they score against the user's JSON, and one bad file does not stop the others."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detection.models.build import build_model
from detection.prediction.inputs import image_files
from detection.prediction.predict import predict_files
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

CPU = torch.device("cpu")


class Threshold(nn.Module):
    """Finds the dark rectangle of an image by its pixels, exactly: label 1 where it starts at an even column, else 2.

    ``kind`` is what it gives beside boxes: "masks", "keypoints" (the rectangle's corners) or "boxes".
    """

    def __init__(self, kind="masks"):
        super().__init__()
        self.kind = kind

    def forward(self, images):
        return [self.detect(image) for image in images]

    def detect(self, image):
        dark = image.mean(dim=0) < 0.3
        rows, columns = dark.any(dim=1).nonzero()[:, 0], dark.any(dim=0).nonzero()[:, 0]
        if len(rows) == 0:
            boxes = torch.zeros(0, 4)
        else:
            boxes = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float()
        count = len(boxes)
        found = {
            "boxes": boxes,
            "labels": (boxes[:, 0].long() % 2) + 1,
            "scores": torch.full((count,), 0.4),
        }
        if self.kind == "masks":
            found["masks"] = dark[None, None].float()[:count]
        if self.kind == "keypoints":
            corners = boxes.reshape(count, 2, 2)
            found["keypoints"] = torch.cat([corners, torch.ones(count, 2, 1)], dim=-1)
        return found


def options(tiny_model, **changes):
    return replace(tiny_model, **{"category_ids": (3, 7), "max_size": 640} | changes)


def rectangle(path, orientation=None, size=(48, 64), box=(10, 9, 28, 25), kind="PNG"):
    pixels = np.full((*size, 3), 230, dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 30
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, kind, exif=exif)
    return path


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


def average_precision(annotations, results, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        truth.dataset.setdefault("info", {})
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize("given_folder", [True, False])
def test_results_score_against_the_users_json(coco, tiny_model, tmp_path, given_folder, capsys):
    """Image ids 10, 20, 30 and categories 7 and 3 are the JSON's; below the threshold nothing is drawn, all is kept."""
    files = image_files([coco[0]])
    failed = predict_files(
        *(Threshold(), options(tiny_model), files, tmp_path / "out", 0.5, CPU),
        annotations=coco[1],
        images=coco[0] if given_folder else None,
        draw=False,
    )
    assert failed == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.json"]
    results = results_in(tmp_path / "out")
    assert {(it["image_id"], it["category_id"]) for it in results} == {(10, 7), (20, 3), (30, 7)}
    for kind in ("bbox", "segm"):
        assert average_precision(coco[1], str(tmp_path / "out" / "results.json"), kind) == pytest.approx(1.0)
    assert capsys.readouterr().out.count(": 0 objects") == 3


@pytest.mark.parametrize("kind", ["boxes", "keypoints"])
def test_other_detectors(coco, tiny_model, tmp_path, kind):
    files = image_files([coco[0]])
    changes = {"kind": {"boxes": "retinanet", "keypoints": "keypointrcnn"}[kind]}
    changes |= {"keypoint_names": ("first", "last")} if kind == "keypoints" else {}
    chosen = options(tiny_model, **changes)
    assert predict_files(Threshold(kind), chosen, files, tmp_path / "out", 0.3, CPU, annotations=coco[1]) == 0
    results = results_in(tmp_path / "out")
    assert all("segmentation" not in it for it in results)
    assert average_precision(coco[1], results, "bbox") == pytest.approx(1.0)
    if kind == "keypoints":
        first = next(it for it in results if it["image_id"] == 10)
        assert first["keypoints"] == [5, 9, 1, 23, 25, 1]
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_numbered_images_and_what_was_read(tiny_model, tmp_path):
    first, second = rectangle(tmp_path / "in" / "b.png"), rectangle(tmp_path / "in" / "a.png", box=(11, 5, 20, 20))
    assert predict_files(Threshold(), options(tiny_model), [first, second], tmp_path / "out", 0.3, CPU) == 0
    results = results_in(tmp_path / "out")
    assert [(it["image_id"], it["file_name"], it["category_id"], it["bbox"]) for it in results] == [
        (1, first.as_posix(), 3, [10, 9, 18, 16]),
        (2, second.as_posix(), 7, [11, 5, 9, 15]),
    ]
    content = json.loads((tmp_path / "out" / "images.json").read_text())
    assert content["images"][1] == {"id": 2, "file_name": second.as_posix(), "height": 48, "width": 64}
    assert content["categories"] == [{"id": 3, "name": "bar"}, {"id": 7, "name": "square"}]
    for path in ("a.png", "b.png"):
        assert max(Image.open(tmp_path / "out" / path).size) >= 640
    # The list is COCO's: annotations for it make the results score.
    truth = [{**it, "id": number, "iscrowd": 0, "area": 1} for number, it in enumerate(results, 1)]
    (tmp_path / "truth.json").write_text(json.dumps({**content, "annotations": truth}))
    assert average_precision(tmp_path / "truth.json", results, "segm") == pytest.approx(1.0)


def test_without_category_ids_they_are_1_to_c(tiny_model, tmp_path):
    file = rectangle(tmp_path / "x.png")
    predict_files(Threshold(), options(tiny_model, category_ids=()), [file], tmp_path / "out", 0.3, CPU)
    assert [it["category_id"] for it in results_in(tmp_path / "out")] == [1]


def write_json(path, images, categories=({"id": 3, "name": "bar"}, {"id": 7, "name": "square"}), annotations=()):
    path.write_text(json.dumps({"images": list(images), "annotations": annotations, "categories": list(categories)}))
    return path


def test_orientation_follows_the_json(tiny_model, tmp_path):
    """A file stored as 48 x 64 that a viewer turns to 64 x 48: by the JSON's size it is turned or left as it is."""
    turned = rectangle(tmp_path / "turned.png", orientation=6)
    left = rectangle(tmp_path / "left.png", orientation=6)
    entries = [
        {"id": 1, "file_name": "turned.png", "height": 64, "width": 48},
        {"id": 2, "file_name": "left.png", "height": 48, "width": 64},
    ]
    listed = write_json(tmp_path / "list.json", entries)
    arguments = (Threshold(), options(tiny_model), [turned, left])
    assert predict_files(*arguments, tmp_path / "out", 0.3, CPU, annotations=listed) == 0
    assert [it["bbox"] for it in results_in(tmp_path / "out")] == [[23, 10, 16, 18], [10, 9, 18, 16]]
    # Without a JSON the orientation is applied.
    assert predict_files(*arguments, tmp_path / "out", 0.3, CPU) == 0
    assert [it["bbox"] for it in results_in(tmp_path / "out")] == [[23, 10, 16, 18]] * 2
    assert json.loads((tmp_path / "out" / "images.json").read_text())["images"][0]["height"] == 64


def test_a_file_that_cannot_be_used_is_reported_and_the_rest_goes_on(tiny_model, tmp_path, capsys):
    good = [rectangle(tmp_path / "a.png"), rectangle(tmp_path / "z.png")]
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(good[0].read_bytes()[:60])
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    thin = rectangle(tmp_path / "thin.png", size=(1, 700), box=(0, 0, 9, 1))
    files = [good[0], damaged, text, thin, tmp_path / "missing.png", good[1]]
    assert predict_files(Threshold(), options(tiny_model), files, tmp_path / "out", 0.3, CPU) == 4
    errors = capsys.readouterr().err
    assert errors.count("\n") == errors.count("not used: ") == 4
    for file in files[1:5]:
        assert str(file) in errors
    assert "max_size = 640" in errors and "700 x 1" in errors
    assert [it["image_id"] for it in results_in(tmp_path / "out")] == [1, 6]
    content = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [it["id"] for it in content["images"]] == [1, 6]


def test_sizes_that_the_json_contradicts_are_reported(tiny_model, tmp_path, capsys):
    file = rectangle(tmp_path / "a.png")
    listed = write_json(tmp_path / "list.json", [{"id": 1, "file_name": "a.png", "height": 10, "width": 20}])
    assert predict_files(Threshold(), options(tiny_model), [file], tmp_path / "out", 0.3, CPU, annotations=listed) == 1
    assert "64 x 48" in capsys.readouterr().err
    assert results_in(tmp_path / "out") == []


@pytest.mark.parametrize("ratio", [640, 641])
def test_the_thinnest_image_that_a_detector_takes(tiny_model, tmp_path, ratio):
    """Above max_size the shorter side would be resized to no pixel; at it the whole way works."""
    model = build_model(options(tiny_model)).eval()
    file = rectangle(tmp_path / "thin.png", size=(1, ratio), box=(0, 0, 9, 1))
    failed = predict_files(model, options(tiny_model), [file], tmp_path / "out", 0.0, CPU, sampling="layer4.0.conv2")
    assert failed == (1 if ratio > 640 else 0)


def entry(number, name):
    return {"id": number, "file_name": name, "height": 48, "width": 64}


@pytest.mark.parametrize(
    ("entries", "files", "message"),
    [
        ([entry(1, "a.png")], ["in/b.png"], r"in/b.png is not listed; each file must be one listed image"),
        ([entry(1, "p/a.png"), entry(2, "q/a.png")], ["in/a.png"], r"in/a.png is listed 2 times"),
        ([entry(1, "p/a.png")], ["in/p/a.png", "in/q/a.png"], r"in/q/a.png and .*in/p/a.png are both image 1"),
        ([entry(1, "a.png")], [f"in/{it}.png" for it in "bcdefgh"], r"f.png is not listed and 2 more;"),
        ([entry(1, "a.png"), entry(1, "b.png")], ["in/a.png"], "image id 1 is listed twice"),
        ([entry(1, "a.png"), entry(2, "a.png")], ["in/a.png"], "in/a.png is listed 2 times"),
        ([{"id": "1", "file_name": "a.png"}], ["in/a.png"], "entry 0 of 'images' must have an integer 'id'"),
    ],
)
def test_files_that_are_not_one_listed_image(tiny_model, tmp_path, entries, files, message):
    """An error before anything runs: the files need not even exist."""
    listed = write_json(tmp_path / "list.json", entries)
    paths = [tmp_path / file for file in files]
    with pytest.raises(ValueError, match=message):
        predict_files(nn.Identity(), options(tiny_model), paths, tmp_path / "out", 0.3, CPU, annotations=listed)
    assert not (tmp_path / "out").exists()


def test_files_by_path_by_name_and_by_windows_path(tiny_model, tmp_path):
    names = ["p/a.png", "q/a.png", "q/b.png", "c.png"]
    for name in names:
        rectangle(tmp_path / "in" / name)
    listed = write_json(
        tmp_path / "list.json",
        [entry(5, "p/a.png"), entry(6, "q\\a.png"), entry(7, "./q/b.png"), entry(8, "elsewhere/c.png"), entry(9, "d")],
    )
    files = [tmp_path / "in" / name for name in names]
    arguments = (Threshold(), options(tiny_model), files, tmp_path / "out", 0.3, CPU)
    assert predict_files(*arguments, annotations=listed, images=tmp_path / "in", draw=False) == 0
    assert [it["image_id"] for it in results_in(tmp_path / "out")] == [5, 6, 7, 8]
    assert "file_name" not in results_in(tmp_path / "out")[0]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (
            [{"id": 1, "name": "bar"}, {"id": 2, "name": "square"}],
            "category 3 is not listed, for the model it is 'bar'",
        ),
        ([{"id": 3, "name": "square"}, {"id": 7, "name": "bar"}], "category 3 is 'square', for the model it is 'bar'"),
    ],
)
def test_categories_that_are_not_the_models(tiny_model, tmp_path, categories, message):
    listed = write_json(tmp_path / "list.json", [entry(1, "a.png")], categories)
    with pytest.raises(ValueError, match=message):
        predict_files(
            nn.Identity(), options(tiny_model), [Path("a.png")], tmp_path / "out", 0.3, CPU, annotations=listed
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("nonsense", "is no JSON file"), ("[]", "has no list 'images'")],
)
def test_a_json_that_cannot_be_used(tiny_model, tmp_path, content, message):
    listed = tmp_path / "list.json"
    if content is not None:
        listed.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        predict_files(
            nn.Identity(), options(tiny_model), [Path("a.png")], tmp_path / "out", 0.3, CPU, annotations=listed
        )


def test_pictures_of_equal_names_and_of_sampling(tiny_model, tmp_path):
    files = [rectangle(tmp_path / "in" / name) for name in ("a/x.png", "b/x.png", "b/x-sampling.png")]
    files.append(rectangle(tmp_path / "in" / "b" / "x.jpg", kind="JPEG"))
    model = build_model(options(tiny_model)).train()
    assert predict_files(model, options(tiny_model), files, tmp_path / "out", 0.3, CPU, sampling="layer4.1.conv2") == 0
    assert not model.training
    pictures = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    names = ("a/x", "b/x.png", "b/x-sampling.png", "b/x.jpg")
    assert pictures == {name + end for name in names for end in (".png", "-sampling.png")}


def test_pictures_beside_the_images_overwrite_none(tiny_model, tmp_path):
    file = rectangle(tmp_path / "x.png")
    before = file.read_bytes()
    predict_files(Threshold(), options(tiny_model), [file, file], tmp_path, 0.3, CPU)
    assert file.read_bytes() == before
    assert (tmp_path / "x.png.png").is_file()
    assert len(results_in(tmp_path)) == 1  # a file given twice is one


def test_a_wrong_layer_is_named_before_anything_runs(tiny_model, tmp_path):
    model = build_model(options(tiny_model))
    with pytest.raises(ValueError, match="layer is 'layer1', no deformable layer .*backbone.body.layer4.0.conv2"):
        predict_files(model, options(tiny_model), [], tmp_path / "out", 0.3, CPU, sampling="layer1")
    assert not (tmp_path / "out").exists()


def test_earlier_results_stay_where_nothing_was_done(tiny_model, tmp_path):
    file = rectangle(tmp_path / "x.png")
    output = tmp_path / "out"
    output.mkdir()
    (output / "results.json").write_text("earlier")

    with pytest.raises(KeyboardInterrupt):
        predict_files(Failing(KeyboardInterrupt()), options(tiny_model), [file], output, 0.3, CPU)
    assert [path.name for path in output.iterdir()] == ["results.json"]
    assert (output / "results.json").read_text() == "earlier"


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, images):
        raise self.error


def test_errors_of_the_model(tiny_model, tmp_path, capsys):
    file = rectangle(tmp_path / "x.png")
    for error in (torch.OutOfMemoryError("CUDA out of memory.\nTried"), RuntimeError("can't allocate memory: ")):
        assert predict_files(Failing(error), options(tiny_model), [file], tmp_path / "out", 0.3, CPU) == 1
        assert "x.png does not fit into memory" in capsys.readouterr().err
    model = Failing(RuntimeError("a mistake"))
    assert predict_files(model, options(tiny_model), [file], tmp_path / "out", 0.3, CPU) == 1
    assert "x.png: RuntimeError: a mistake" in capsys.readouterr().err


def test_boxes_that_are_not_finite_are_reported(tiny_model, tmp_path, capsys):
    class Wild(Threshold):
        def detect(self, image):
            return {**super().detect(image), "boxes": torch.full((1, 4), float("nan"))}

    file = rectangle(tmp_path / "x.png")
    assert predict_files(Wild(), options(tiny_model), [file], tmp_path / "out", 0.3, CPU) == 1
    assert "x.png: ValueError: the model's boxes are NaN" in capsys.readouterr().err
