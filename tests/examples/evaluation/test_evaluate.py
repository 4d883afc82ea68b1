"""What evaluate takes, refuses and leaves as it was."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from detection.data.errors import DamagedSampleError
from detection.evaluation.evaluate import evaluate
from evaluation_samples import CPU, Detector, InMemory, options_for, perfect, sample_of, score

SIZE = (48, 64)


def small(images: int = 4) -> InMemory:
    return InMemory([sample_of(seed, SIZE, [(4, 4, 20, 20), (36, 10, 20, 16)], [1, 2]) for seed in range(images)])


class Damaged(InMemory):
    """Sample 1 cannot be read."""

    def __init__(self, samples, damaged="skip"):
        super().__init__(samples)
        self.damaged = damaged

    def __getitem__(self, index):
        if index == 1:
            raise DamagedSampleError("pictures/two.png cannot be read")
        return self.samples[index]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_skipped_image_is_neither_predicted_nor_missed(workers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the loader may name it, too
        report = score(Damaged(small().samples), workers=workers)
    assert (report.images, report.skipped_images) == (3, 1)
    assert report.per_class["segm"]["bar"]["objects"] == 3
    assert report.metrics["segm"]["AP"] == pytest.approx(1)
    assert "two.png" in report.skipped[0]
    assert report.table().splitlines()[-1] == "images: 3, skipped images: 1"


def test_a_damaged_image_ends_an_evaluation_that_refuses_it():
    with pytest.raises(DamagedSampleError, match=r"two\.png"):
        score(Damaged(small().samples, "refuse"))


def test_all_images_skipped():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = score(Damaged([small().samples[0]] * 2)), score(AllDamaged(small().samples))
    assert report[0].images == 1
    assert (report[1].images, report[1].skipped_images) == (0, 4)
    assert set(report[1].metrics["bbox"].values()) == {-1.0}


class AllDamaged(Damaged):
    targets = "masks"

    def __getitem__(self, index):
        raise DamagedSampleError(f"picture {index} cannot be read")


def test_what_the_samples_left_out_is_counted():
    dataset = small()
    dataset.samples[0][1].update(skipped=2, dropped=1)
    dataset.samples[2][1].update(skipped=1, dropped=4)
    report = score(dataset)
    assert (report.skipped_annotations, report.dropped_objects) == (3, 5)
    assert report.table().splitlines()[-1] == "images: 4, skipped annotations: 3, dropped objects: 5"


@pytest.mark.parametrize(
    ("targets", "kinds", "primary"), [("masks", ["bbox", "segm"], "segm"), ("boxes", ["bbox"], "bbox")]
)
def test_masks_count_where_model_and_data_set_have_them(targets, kinds, primary):
    report = score(small(), targets=targets)
    assert (list(report.metrics), list(report.per_class), report.primary) == (kinds, kinds, primary)


def test_a_mask_model_on_boxes_alone_is_scored_by_boxes():
    dataset = small()
    answers = Detector(dataset.samples, perfect)
    for _, target in dataset.samples:
        del target["masks"]
    report = evaluate(answers, dataset, CPU, options=options_for("masks"), keep_results=True)
    assert list(report.metrics) == ["bbox"]
    assert report.metrics["bbox"]["AP"] == pytest.approx(1)
    assert "segmentation" not in report.results[0]


def test_every_module_is_back_in_its_own_mode():
    dataset = small()
    model = Detector(dataset.samples, perfect)
    model.add_module("frozen", torch.nn.BatchNorm2d(1).eval())
    model.add_module("trained", torch.nn.BatchNorm2d(1))
    seen = []
    model.register_forward_hook(lambda *_: seen.append([module.training for module in model.modules()]))
    evaluate(model, dataset, CPU, options=options_for())
    assert seen == [[False] * 3] * 4
    assert [module.training for module in model.modules()] == [True, False, True]


def test_the_mode_is_back_after_an_error_too():
    dataset = small()
    model = Detector(dataset.samples[:1], perfect)  # knows the first image only
    with pytest.raises(KeyError):
        evaluate(model, dataset, CPU, options=options_for())
    assert model.training


def test_results_have_the_users_ids_and_are_kept_on_request():
    dataset = small()
    dataset.category_ids = [7, 3, 90]
    for number, (_, target) in enumerate(dataset.samples):
        target["image_id"] = 1000 + number
    assert score(dataset).results == []
    results = score(dataset, keep_results=True).results
    assert json.loads(json.dumps(results)) == results
    assert [(it["image_id"], it["category_id"]) for it in results[:3]] == [(1000, 7), (1000, 3), (1001, 7)]
    assert results[1]["bbox"] == [36, 10, 20, 16]
    assert results[1]["score"] == pytest.approx(0.9)
    assert results[1]["segmentation"]["size"] == list(SIZE)


def test_without_ids_of_their_own_images_count_from_0_and_categories_are_the_models():
    answers = Detector(small().samples, perfect)
    report = evaluate(answers, small(), CPU, options=options_for(category_ids=(7, 3, 90)), keep_results=True)
    assert {it["image_id"] for it in report.results} == {0, 1, 2, 3}
    assert {it["category_id"] for it in report.results} == {7, 3}
    plain = score(small(), keep_results=True)
    assert {it["category_id"] for it in plain.results} == {1, 2}


def test_other_classes_than_the_models_are_refused():
    """The same names in another order would score each class by the other's detections."""
    dataset = small()
    with pytest.raises(ValueError, match="model's classes are square, bar, disc; the data set has bar, square, disc"):
        evaluate(Detector(dataset.samples, perfect), dataset, CPU, options=options_for(names=("square", "bar", "disc")))


def test_a_label_beyond_the_models_classes_is_named():
    with pytest.raises(ValueError, match=r"detects labels \[5, 6\]; its options name 3 classes"):
        score(small(), lambda target: {**perfect(target), "labels": target["labels"] + 4})


@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_output_that_is_not_finite_is_an_error(name):
    def diverged(target):
        prediction = perfect(target)
        prediction[name] = torch.full_like(prediction[name], torch.nan)
        return prediction

    with pytest.raises(ValueError, match=f"the model's {name} are NaN or infinite"):
        score(small(), diverged)


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="the data set is empty"):
        score(InMemory([]))


def test_an_image_id_may_be_none_or_a_text():
    dataset = small(3)
    dataset.samples[0][1]["image_id"] = None
    dataset.samples[1][1]["image_id"] = "a/b"
    report = score(dataset, keep_results=True)
    assert [record.image_id for record in report.records] == [0, "a/b", 2]
    dataset.samples[2][1]["image_id"] = [1, 2]
    with pytest.raises(ValueError, match=r"image_id of sample 2 is \[1, 2\]; it must be a whole number"):
        score(dataset)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (lambda: [1, 2, 3], "category_ids of data set InMemory is a method; it must be a list of 3 whole numbers"),
        ([7, 3], r"is \[7, 3\]; it must be a list of 3 whole numbers"),
        (["a", "b", "c"], r"is \['a', 'b', 'c'\]; it must be a list of 3"),
    ],
)
def test_category_ids_that_are_no_list_of_them(ids, message):
    """Refused before the detector runs."""
    dataset = small()
    dataset.category_ids = ids
    with pytest.raises(ValueError, match=message):
        evaluate(torch.nn.Identity(), dataset, CPU, options=options_for())


def test_an_attribute_stray_of_another_meaning_is_not_counted():
    dataset = small()
    dataset.stray = "dog"
    assert score(dataset).skipped_annotations == 0


def test_masks_count_where_the_first_sample_has_no_objects_and_no_masks():
    image, target = sample_of(9, SIZE, [], [])
    del target["masks"]
    dataset = InMemory([(image, target), *small().samples])
    answers = Detector(dataset.samples, lambda it: {"masks": torch.zeros(0, 1, *SIZE), **perfect(it)})
    assert evaluate(answers, dataset, CPU, options=options_for()).primary == "segm"
