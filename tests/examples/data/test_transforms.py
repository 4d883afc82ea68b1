"""Augmentation: image, boxes, masks and keypoints move together, by a given generator alone."""

from __future__ import annotations

import pytest
import torch
from detection.data.sample import checked
from detection.data.transforms import AUGMENTATIONS, TRAINING, TRAINING_COINS, make_transforms, mirrored_keypoints

NAMES = ["nose", "left_eye", "right_eye"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def picture(objects=((10, 12, 22, 20), (40, 30, 52, 44)), size=(48, 64)):
    """Each object is a rectangle of a colour of its own; its keypoints are its first, last and middle pixel."""
    image = torch.ones((3, *size))
    masks = torch.zeros((len(objects), *size), dtype=torch.uint8)
    points = torch.zeros((len(objects), 3, 3))
    for number, (x1, y1, x2, y2) in enumerate(objects):
        image[:, y1:y2, x1:x2] = 0.1 + 0.3 * number
        masks[number, y1:y2, x1:x2] = 1
        x, y = (x1 + x2) // 2, (y1 + y2) // 2
        points[number] = torch.tensor([[x1, y1, 2], [x2 - 1, y2 - 1, 1], [x, y, 2]])
    target = {
        "boxes": torch.tensor(objects, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(1, len(objects) + 1),
        "masks": masks,
        "keypoints": points,
        "iscrowd": torch.zeros(len(objects), dtype=torch.int64),
        "area": masks.flatten(1).sum(1).float() if len(objects) else torch.zeros(0),
        "image_id": 5,
    }
    return image, target


def edges(mask):
    rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def test_flips_move_everything_and_swap_left_and_right():
    image, target = picture()
    seen = set()
    for name, axis in (("flip", 2), ("flip-vertical", 1)):
        (flip,) = make_transforms([name], NAMES)
        for seed in range(8):
            moved, found = flip((image, target), seeded(seed))
            mirrored = not torch.equal(moved, image)
            seen.add((name, mirrored))
            if not mirrored:
                assert found is target
                continue
            assert torch.equal(moved, image.flip(axis))
            assert torch.equal(found["masks"], target["masks"].flip(axis))
            assert found["boxes"].tolist() == [edges(mask) for mask in found["masks"]]
            assert type(found["boxes"]) is torch.Tensor
            for number in range(2):
                for here, there in ((0, 0), (1, 2), (2, 1)):  # the left eye is what was the right one
                    x, y, visible = found["keypoints"][number, here].tolist()
                    old_x, old_y, old_visible = target["keypoints"][number, there].tolist()
                    assert (x, y) == ((63 - old_x, old_y) if axis == 2 else (old_x, 47 - old_y))
                    assert visible == old_visible
    assert len(seen) == 4


def test_hidden_keypoints_stay_zero():
    image, target = picture()
    target["keypoints"][0, 0] = 0
    (flip,) = make_transforms(["flip"], NAMES)
    found = [flip((image, target), seeded(seed))[1]["keypoints"][0, 0].tolist() for seed in range(8)]
    assert found == [[0, 0, 0]] * 8


def test_colours_change_and_nothing_else():
    image, target = picture()
    (colour,) = make_transforms(["colour"])
    found = [colour((image, target), seeded(seed)) for seed in range(6)]
    assert all(changed is target for _, changed in found)
    means = {round(float(changed.mean()), 4) for changed, _ in found}
    assert len(means) == 6
    assert all(changed.min() >= 0 and changed.max() <= 1 and changed.shape == image.shape for changed, _ in found)


@pytest.mark.parametrize("name", ["scale", "crop"])
def test_what_is_left_of_objects_stays_on_their_pixels(name):
    sample = picture()
    (transform,) = make_transforms([name])
    sizes, lost, hidden = set(), 0, 0
    for seed in range(60):
        image, target = checked(transform(sample, seeded(seed)), "x", 2, "masks")
        _, with_points = transform(sample, seeded(seed))
        sizes.add(tuple(image.shape))
        count = len(target["labels"])
        lost += count < 2
        assert len(with_points["keypoints"]) == len(target["iscrowd"]) == count
        for number in range(count):
            mask, label = target["masks"][number], int(target["labels"][number])
            assert target["boxes"][number].tolist() == edges(mask)
            assert target["area"][number] == mask.sum()
            inner = torch.nn.functional.avg_pool2d(mask[None].float(), 3, 1, 1)[0] > 0.99  # not its blurred border
            if inner.any():
                assert float((image[:, inner] - (0.1 + 0.3 * (label - 1))).abs().max()) < 0.02
            x1, y1, x2, y2 = target["boxes"][number].tolist()
            for x, y, visible in with_points["keypoints"][number].tolist():
                hidden += visible == 0
                if visible:
                    assert x1 - 1.2 <= x <= x2 + 0.2 and y1 - 1.2 <= y <= y2 + 0.2  # centres, to a pixel
    assert lost and hidden
    assert (len(sizes) == 1) == (name == "scale")


def test_scale_makes_objects_half_to_twice_as_large():
    image, target = picture(objects=((28, 20, 36, 28),))  # in the middle
    (transform,) = make_transforms(["scale"])
    sides = []
    for seed in range(80):
        moved, found = transform((image, target), seeded(seed))
        assert moved.shape == image.shape
        if len(found["boxes"]) and found["boxes"][0, 0] > 0 and found["boxes"][0, 2] < 64:
            sides.append(float(found["boxes"][0, 2] - found["boxes"][0, 0]) / 8)
    assert 0.45 <= min(sides) < 0.65
    assert 1.5 < max(sides) <= 2.1


@pytest.mark.parametrize("names", [[name] for name in AUGMENTATIONS] + [list(AUGMENTATIONS)])
def test_random_numbers_are_the_generators_alone(names):
    transforms = make_transforms(names, NAMES)

    def run(seed):
        sample, generator = picture(), seeded(seed)
        for transform in transforms:
            sample = transform(sample, generator)
        return sample

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    image, target = run(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, found = run(3)
    assert torch.equal(image, again)
    assert all(torch.equal(value, found[key]) for key, value in target.items() if torch.is_tensor(value))
    assert any(not torch.equal(image, run(seed)[0]) for seed in range(4, 9))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 9), (48, 64)])
@pytest.mark.parametrize("objects", [0, 1])
def test_small_images_and_none_of_objects(size, objects):
    sample = picture(objects=((0, 0, 1, 1),) * objects, size=size)
    sample[1]["ignored_boxes"] = torch.zeros((0, 4))  # as of CocoInstances: the box is not taken for normalised
    for transform in make_transforms(list(AUGMENTATIONS), NAMES):
        for seed in range(20):
            image, target = checked(transform(sample, seeded(seed)), "x", 2, "masks")
            assert len(target["boxes"]) <= objects
            assert min(image.shape) > 0


def test_boxes_alone():
    image, target = picture()
    target = {"boxes": target["boxes"], "labels": target["labels"]}
    for transform in make_transforms(list(AUGMENTATIONS)):
        for seed in range(20):
            moved, found = checked(transform((image, target), seeded(seed)), "x", 2, "boxes")
            assert found.keys() == target.keys()
            limit = torch.tensor([moved.shape[2], moved.shape[1]] * 2)
            assert ((found["boxes"] >= 0) & (found["boxes"] <= limit + 1e-3)).all()


def test_boxes_that_a_flip_makes_degenerate_leave():
    """Near 0 a float has more digits than near the other side of a wide image."""
    boxes = torch.tensor([[0.0010, 1, 0.0021, 5], [1.0, 1, 9, 5]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2])}
    (flip,) = make_transforms(["flip"])
    counts = set()
    for seed in range(8):
        _, found = flip((torch.zeros(3, 8, 32768), target), seeded(seed))
        sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
        assert bool((sides >= 1e-3).all())
        assert len(found["labels"]) == len(found["boxes"])
        counts.add(len(sides))
    assert counts == {1, 2}


def test_names():
    assert mirrored_keypoints(["nose", "left_eye", "right_eye", "RightHand", "LeftHand"]) == [0, 2, 1, 4, 3]
    with pytest.raises(ValueError, match="keypoint 'left_eye' has no counterpart 'right_eye'"):
        make_transforms(["flip"], ["left_eye"])
    with pytest.raises(ValueError, match="augmentation 'blur' is none of flip, flip-vertical, colour, scale, crop"):
        make_transforms(["flip", "blur"])
    (flip,) = make_transforms(["flip"])
    with pytest.raises(ValueError, match="there are 3 keypoints, but keypoint_names has 0"):
        [flip(picture(), seeded(seed)) for seed in range(8)]
    assert len(make_transforms(TRAINING)) == 2
    assert len(make_transforms(TRAINING_COINS)) == 3
