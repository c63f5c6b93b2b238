"""RDED, against values of the official code.

`fixtures/real_golden.npz` holds what RDED's `selector` and `mix_images` make of
random crops with a linear teacher, and moments of 20,000 boxes that torchvision
0.28 drew with `RandomResizedCrop.get_params`.
"""

import pathlib

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gift_jax.data import info, preprocess, real, sources
from gift_jax.distill import Rded, rded
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import CallableTeacher, FlaxTeacher, TeacherError

NORMALIZATION = preprocess.Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def golden():
    path = pathlib.Path(__file__).parents[1] / "fixtures" / "real_golden.npz"
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def make_dataset(images, labels, num_classes=2):
    made = info.DatasetInfo("made", num_classes, images.shape[1], 3, NORMALIZATION)
    split = real.ImageSplit(sources.RecordList(images, np.array(labels)), made, "train")
    return real.RealDataset(made, split, split)


def constant_images(values, side=8):
    values = np.asarray(values, np.uint8)[:, None, None, None]
    return np.broadcast_to(values, (len(values), side, side, 3)).copy()


def brightness(pixels):
    return pixels[:, 3:5, 3:5].mean(axis=(1, 2, 3))


def prefers(loss, num_classes=2):
    """A teacher that finds images of any class the better the lower `loss` is.

    It is less sure of every class alike: its logits are those of `num_classes` classes
    and one more, which is likelier by the loss.
    """

    def answer(pixels):
        logits = np.zeros((len(pixels), num_classes + 1), np.float32)
        logits[:, -1] = loss(pixels)
        return logits

    return CallableTeacher("made", answer, (8, 8, 3), num_classes + 1)


# Crops.


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32))
def test_boxes_are_squares_within_the_image(height, width, seed):
    boxes = rded.crop_boxes(np.random.default_rng(seed), height, width, 3)
    left, top, right, bottom = boxes.T
    np.testing.assert_array_equal(right - left, bottom - top)
    assert (right - left > 0).all()
    assert (left >= 0).all() and (right <= width).all()
    assert (top >= 0).all() and (bottom <= height).all()


@pytest.mark.parametrize(("name", "size"), [("square", (32, 32)), ("wide", (30, 90))])
def test_boxes_are_distributed_as_torchvisions(golden, name, size):
    boxes = rded.crop_boxes(np.random.default_rng(0), *size, 20_000)
    left, top, right, bottom = boxes.T
    found = np.stack([top, left, bottom - top, right - left], axis=1)
    mean, std = golden[f"boxes_mean_{name}"], golden[f"boxes_std_{name}"]
    # Both sides are samples: five standard errors of their difference.
    tolerance = 5 * std * np.sqrt(2 / 20_000)
    assert (np.abs(found.mean(axis=0) - mean) < tolerance).all()
    np.testing.assert_allclose(found.std(axis=0), std, rtol=0.03)
    whole = (found[:, 2] == min(size)).mean()
    assert abs(whole - golden[f"boxes_whole_{name}"]) < 0.01


def test_box_of_an_image_that_no_square_fits():
    # 8% of this area is a square of side 28 at least.
    boxes = rded.crop_boxes(np.random.default_rng(0), 5, 2000, 4)
    np.testing.assert_array_equal(boxes, [[997, 0, 1002, 5]] * 4)


def test_crops_are_cut_and_resized():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 20, 20, 3), np.uint8)
    split = make_dataset(images, [0, 0, 1, 1]).train
    crops = rded.draw_crops(split, np.array([2, 0]), count=3, side=6, seed=9)
    assert crops.shape == (2, 3, 6, 6, 3)
    assert crops.dtype == np.uint8
    boxes = rded.crop_boxes(np.random.default_rng([9, rded._CROP, 2]), 20, 20, 3)
    for crop, (left, top, right, bottom) in zip(crops[0], boxes, strict=True):
        region = Image.fromarray(images[2, top:bottom, left:right])
        expected = region.resize((6, 6), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(crop, np.asarray(expected))


def test_crops_of_an_image_do_not_depend_on_the_others():
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    split = make_dataset(images, [0] * 6).train
    together = rded.draw_crops(split, np.arange(6), count=2, side=8, seed=1)
    alone = rded.draw_crops(split, np.array([4]), count=2, side=8, seed=1)
    np.testing.assert_array_equal(alone[0], together[4])
    other = rded.draw_crops(split, np.array([4]), count=2, side=8, seed=2)
    assert (other != alone).any()


# Scores, selection and mosaics.


@pytest.mark.parametrize("factor", [1, 2])
def test_official_scores_selection_and_mosaics(golden, factor):
    teacher = golden["teacher"].reshape(4, -1)
    official = info.IMAGENET

    def score(pixels, labels):
        inputs = official.apply(pixels).reshape(len(pixels), -1)
        logits = (inputs @ teacher.T).astype(np.float64)
        right = logits[np.arange(len(labels)), labels]
        return np.log(np.exp(logits).sum(axis=1)) - right

    crops = golden[f"crops_{factor}"]
    mean = np.asarray(official.mean, np.float32)
    losses = rded.crop_losses(score, crops, 2, 8, mean)
    np.testing.assert_allclose(losses, golden[f"losses_{factor}"], rtol=2e-3, atol=2e-6)
    mosaics = rded.mosaic(rded.select(crops, losses, 3 * factor**2), factor)
    np.testing.assert_array_equal(mosaics, golden[f"mosaics_{factor}"])


def test_padding_is_zero_in_normalised_space():
    seen = []

    def score(pixels, labels):
        seen.append(NORMALIZATION.apply(pixels))
        return np.zeros(len(pixels))

    crops = np.full((3, 2, 3, 3, 3), 255, np.uint8)
    mean = np.asarray(NORMALIZATION.mean, np.float32)
    rded.crop_losses(score, crops, 1, 8, mean)
    (inputs,) = seen
    crop = inputs[:6, 2:5, 2:5]  # of five spare pixels, two are above and left
    np.testing.assert_array_equal(
        crop, np.broadcast_to(NORMALIZATION.apply(np.ones((1, 1, 3))), crop.shape)
    )
    assert np.count_nonzero(inputs) == crop.size


def test_padding_is_what_the_teacher_normalises_to_zero():
    own = preprocess.Normalization((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    teacher = FlaxTeacher("own", None, None, own)
    padding = rded.padding_of(teacher, NORMALIZATION)
    np.testing.assert_array_equal(own.apply(padding), 0)
    elsewhere = CallableTeacher("other", lambda images: None, (4, 4, 3), 5)
    padding = rded.padding_of(elsewhere, NORMALIZATION)
    np.testing.assert_array_equal(NORMALIZATION.apply(padding), 0)


def test_teacher_sees_batches_of_one_shape():
    shapes = set()

    def score(pixels, labels):
        shapes.add((pixels.shape, pixels.dtype, labels.shape, labels.dtype))
        return pixels[:, 0, 0, 0]

    crops = np.arange(300, dtype=np.uint16).clip(0, 255).astype(np.uint8)
    crops = np.broadcast_to(crops.reshape(60, 5, 1, 1, 1), (60, 5, 4, 4, 3))
    losses = rded.crop_losses(score, crops, 0, 4, np.zeros(3, np.float32))
    assert shapes == {((256, 4, 4, 3), np.dtype("f4"), (256,), np.dtype("i4"))}
    np.testing.assert_allclose(losses, crops[..., 0, 0, 0] / 255, rtol=1e-6)


def test_losses_that_are_nan_are_refused():
    crops = np.zeros((2, 2, 4, 4, 3), np.uint8)

    def score(pixels, labels):
        return np.full(256, np.nan)

    with pytest.raises(TeacherError, match="NaN for images of class 3"):
        rded.crop_losses(score, crops, 3, 4, np.zeros(3, np.float32))


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(5)(images.reshape(len(images), -1))


def test_the_score_is_the_cross_entropy_of_any_teacher():
    rng = np.random.default_rng(0)
    pixels = rng.uniform(size=(6, 8, 8, 3)).astype(np.float32)
    labels = rng.integers(0, 5, 6).astype(np.int32)
    variables = Linear().init(jax.random.key(0), pixels, train=False)
    inputs = (pixels - np.float32([0.5, 0.4, 0.3])) / np.float32([0.2, 0.3, 0.4])
    logits = Linear().apply(variables, inputs, train=False)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    network = FlaxTeacher("flax", Linear(), variables, NORMALIZATION)
    plain = CallableTeacher("plain", network.logits, (8, 8, 3), 5)
    for teacher in (network, plain):
        score = rded.make_score(teacher)(pixels, labels)
        assert isinstance(score, np.ndarray)
        np.testing.assert_allclose(score, expected, 1e-5)


def test_selection_takes_the_lowest_losses():
    losses = np.array([[5, 1, 9], [0.5, 7, 7], [2, 3, 4], [1, 8, 1]], np.float32)
    crops = np.arange(12).reshape(4, 3, 1, 1, 1)
    # Images 0 and 3 are equal: the earlier image, the earlier crop.
    assert rded.select(crops, losses, 3).ravel().tolist() == [3, 1, 9]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_cells_of_mosaics(factor, count, side):
    patches = np.arange(count * factor**2)[:, None, None, None] + np.zeros(
        (count * factor**2, side, side, 3), int
    )
    mosaics = rded.mosaic(patches, factor)
    assert mosaics.shape == (count, factor * side, factor * side, 3)
    for image in range(count):
        for row in range(factor):
            for column in range(factor):
                top, left = row * side, column * side
                cell = mosaics[image, top : top + side, left : left + side]
                assert (cell == image + count * (row * factor + column)).all()


# The whole.


def test_best_images_of_each_class_are_kept():
    values = np.random.default_rng(0).permutation(240)
    labels = np.arange(240) % 2
    dataset = make_dataset(constant_images(values), labels)
    made = Rded(5).make(dataset, teacher=prefers(brightness), seed=0)
    assert made.images.shape == (10, 8, 8, 3)
    np.testing.assert_array_equal(made.labels, np.repeat([0, 1], 5))
    darkest = [np.sort(values[labels == label])[:5] for label in (0, 1)]
    np.testing.assert_array_equal(
        made.images * 255, constant_images(np.concatenate(darkest))
    )
    assert made.preprocess == NORMALIZATION
    assert (made.metadata.method, made.metadata.num_classes) == ("rded", 2)
    assert made.metadata.source == (
        "rded: ipc 5, factor 1, images_per_class 300, crops_per_image 5, seed 0, "
        "split train"
    )


def test_mosaics_of_the_best_crops():
    values = np.random.default_rng(0).permutation(200)
    dataset = make_dataset(constant_images(values), [0] * 200, num_classes=1)
    made = Rded(3, factor=2).make(dataset, teacher=prefers(brightness), seed=0)
    corners = np.rint(made.images[:, ::4, ::4, 0] * 255)
    # The n best are top left, the next n top right, and so on.
    ranks = np.arange(12).reshape(4, 3).T.reshape(3, 2, 2)
    np.testing.assert_array_equal(corners, np.sort(values)[ranks])


def test_only_images_per_class_are_looked_at():
    dataset = make_dataset(constant_images(range(100)), [0] * 100, num_classes=1)
    drawn = []

    def loss(pixels):
        drawn.extend(np.rint(pixels[:60, 0, 0, 0] * 255))
        return brightness(pixels)

    few = Rded(2, images_per_class=20, crops_per_image=3)
    few.make(dataset, teacher=prefers(loss), seed=0)
    assert len(set(drawn)) == 20
    assert set(drawn) != set(range(20))


def test_the_seed_decides():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    dataset = make_dataset(images, np.arange(40) % 2)
    first, second, other = (
        Rded(2, factor=2).make(dataset, teacher=prefers(brightness), seed=seed).images
        for seed in (3, 3, 4)
    )
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


def test_pixels_are_8_bit_and_classes_are_reported():
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    dataset = make_dataset(images, np.arange(8) % 2)
    done = []
    made = Rded(2).make(
        dataset,
        teacher=prefers(brightness),
        seed=0,
        on_progress=lambda *progress: done.append(progress),
    )
    assert done == [(1, 2), (2, 2)]
    pixels = np.rint(made.images * 255).astype(np.uint8)
    np.testing.assert_array_equal(pixels.astype(np.float32) / 255, made.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ipc": 4}, "needs 4 images of each class, but class 1 of made has 3"),
        ({"ipc": 1, "factor": 2}, "factor 2 needs 4 images .* class 1"),
        (
            {"ipc": 3, "images_per_class": 2},
            "images_per_class is 2: set it to at",
        ),
        ({"ipc": 1, "factor": 3}, "factor 3 does not divide the image size 8 of made"),
    ],
)
def test_what_cannot_be_made(options, message):
    dataset = make_dataset(constant_images(range(8)), [0] * 5 + [1] * 3)
    with pytest.raises(InputError, match=message):
        Rded(**options).check(dataset)
    with pytest.raises(InputError, match=message):
        Rded(**options).make(dataset, teacher=prefers(brightness), seed=0)


def test_a_teacher_is_needed():
    dataset = make_dataset(constant_images(range(8)), [0] * 5 + [1] * 3)
    with pytest.raises(InputError, match="rded needs a teacher"):
        Rded(1).make(dataset, teacher=None, seed=0)


@pytest.mark.parametrize(
    "option", ["ipc", "factor", "images_per_class", "crops_per_image"]
)
@pytest.mark.parametrize("value", [0, 2.5])
def test_options_are_positive_integers(option, value):
    message = f"Rded: {option} is {value}, expected a whole number of at least 1"
    with pytest.raises(InputError, match=message):
        Rded(**{"ipc": 1, option: value})


def test_what_is_raised_on_progress_ends_the_work():
    dataset = make_dataset(constant_images(range(8)), np.arange(8) % 2)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Rded(1).make(dataset, teacher=prefers(brightness), seed=0, on_progress=stop)


def test_small_classes_are_used_whole():
    dataset = make_dataset(constant_images([9, 7, 8, 3, 1]), [0, 0, 0, 1, 1])
    made = Rded(2).make(dataset, teacher=prefers(brightness), seed=0)
    assert np.rint(made.images[:, 0, 0, 0] * 255).tolist() == [7, 8, 1, 3]


def test_greyscale_digits():
    digits = real.load_dataset("digits")
    teacher = prefers(lambda pixels: -pixels.mean(axis=(1, 2, 3)), num_classes=10)
    made = Rded(2).make(digits, teacher=teacher, seed=0)
    assert made.images.shape == (20, 8, 8, 1)
    # The brightest crops of an image are at least as bright as the image.
    brightest = np.sort(digits.train.all_images().mean(axis=(1, 2, 3)))[-100:]
    assert made.images.mean() * 255 > brightest.mean()
