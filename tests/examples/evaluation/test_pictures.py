"""The pictures of the confusion matrix and of the worst images."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from detection.evaluation.confusion import draw_confusion
from detection.evaluation.pictures import draw_worst
from evaluation_samples import InMemory, perfect, random_answer, random_samples, sample_of, score
from PIL import Image


def pixels_of(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def coloured(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels - colour).max(axis=-1) <= 3).sum())


def nothing(target) -> dict:
    return {name: value[:0] for name, value in perfect(target).items()}


ORANGE, RED, GREEN = (255, 127, 14), (214, 39, 40), (44, 160, 44)


def test_what_is_missed_is_orange_and_what_is_not_there_red(tmp_path):
    samples = [sample_of(seed, (60, 80), [(5, 5, 20, 20), (50, 30, 20, 20)], [1, 2]) for seed in range(3)]

    def half(target):
        prediction = {name: value[:1] for name, value in perfect(target).items()}
        return {**prediction, "labels": prediction["labels"] + 2} if target["image_id"] == 11 else prediction

    for number, (_, target) in enumerate(samples):
        target["image_id"] = 10 + number
    report = score(InMemory(samples), half, keep_results=True)
    dataset = InMemory(samples)
    paths = draw_worst(tmp_path / "worst", dataset, report.records, dataset.names, count=2)
    assert [path.name for path in paths] == ["worst-01-11.png", "worst-02-10.png"]
    wrong, missed = (pixels_of(path) for path in paths)
    assert coloured(wrong, RED) > 500 and coloured(wrong, ORANGE) > 500 and coloured(wrong, GREEN) == 0
    assert coloured(missed, RED) == 0 and coloured(missed, ORANGE) > 500 and coloured(missed, GREEN) > 500


@pytest.mark.parametrize("size", [(40, 400), (400, 40), (1, 1)])
@pytest.mark.parametrize("targets", ["masks", "boxes"])
def test_pictures_of_all_shapes(tmp_path, size, targets):
    box = (0, 0, min(20, size[1]), min(20, size[0]))
    dataset = InMemory([sample_of(0, size, [box], [1])])
    report = score(dataset, nothing, targets, keep_results=True)
    (path,) = draw_worst(tmp_path, dataset, report.records, dataset.names)
    assert min(pixels_of(path).shape[:2]) > 150


def test_without_mistakes_there_is_nothing_to_draw(tmp_path):
    dataset = InMemory([sample_of(0, (40, 40), [(1, 1, 20, 20)], [1])])
    report = score(dataset, keep_results=True)
    assert draw_worst(tmp_path, dataset, report.records, dataset.names) == []


def test_a_data_set_names_its_images(tmp_path):
    class Described(InMemory):
        def describe(self, index):
            return f"folder/picture {index}.png"

        def __getitem__(self, index):
            asked.append(index)
            return self.samples[index]

    asked: list[int] = []
    dataset = Described(random_samples(0, images=3))
    report = score(dataset, random_answer(0), keep_results=True)
    asked.clear()
    paths = draw_worst(tmp_path, dataset, report.records, dataset.names)
    assert len(paths) == len(asked) > 0  # only what is drawn is read


@pytest.mark.parametrize("classes", [1, 3, 30, 80, 365])
def test_confusion_matrices_of_all_sizes(tmp_path, classes):
    generator = np.random.default_rng(0)
    matrix = generator.poisson(0.05, (classes + 1, classes + 1)) + np.diag(generator.integers(0, 20000, classes + 1))
    matrix[-1, -1] = 0
    path = tmp_path / "deep" / "confusion.png"
    draw_confusion(path, matrix, [f"a class of number {number}" for number in range(classes)])
    height, width, _ = pixels_of(path).shape
    assert 500 < height < 4000 and 500 < width < 4000


def test_an_empty_matrix_is_drawn(tmp_path):
    draw_confusion(tmp_path / "empty.png", np.zeros((3, 3), dtype=np.int64), ["a", "b"])
    assert coloured(pixels_of(tmp_path / "empty.png"), (8, 48, 107)) == 0  # no cell is full


@pytest.mark.parametrize("image_id", ["train/a.png", "..", "/", "a\0b", "C:\\x:y", "ü" * 400, "\udcff"])
def test_any_text_as_image_id_makes_a_file_in_the_folder(tmp_path, image_id):
    dataset = InMemory([sample_of(0, (40, 40), [(1, 1, 20, 20)], [1])])
    dataset.samples[0][1]["image_id"] = image_id
    report = score(dataset, nothing, keep_results=True)
    (path,) = draw_worst(tmp_path / "worst", dataset, report.records, dataset.names)
    assert list((tmp_path / "worst").iterdir()) == [path]
    assert path.name.startswith("worst-01-") and path.suffix == ".png"


def test_names_are_no_formulas(tmp_path):
    r"""matplotlib takes $...$ for one, and fails at $\x$; and at a name whose bytes are no UTF-8."""

    class Described(InMemory):
        def describe(self, index):
            return "folder/$\\x$ \udcff.png"

    dataset = Described([sample_of(0, (40, 40), [(1, 1, 20, 20)], [1])], ("$\\x$", "b", "c"))
    report = score(dataset, nothing, keep_results=True)
    assert len(draw_worst(tmp_path, dataset, report.records, dataset.names)) == 1
    draw_confusion(tmp_path / "confusion.png", np.ones((4, 4), dtype=np.int64), dataset.names)


def test_a_method_read_of_another_meaning_is_not_called(tmp_path):
    class Archive(InMemory):
        def read(self, index):
            raise AssertionError("not the sample")

    dataset = Archive([sample_of(0, (40, 40), [(1, 1, 20, 20)], [1])])
    report = score(
        InMemory(dataset.samples),
        nothing,
        keep_results=True,
    )
    assert len(draw_worst(tmp_path, dataset, report.records, dataset.names)) == 1
