"""Views that a batch shares."""

import jax
import numpy as np
import pytest

from gift_jax.augment.views import draw_resized_crop
from gift_jax.distill.recovery import views

IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 64)


def test_rolls_of_all_images_by_every_number_of_pixels():
    rolled = jax.jit(jax.vmap(lambda key: views.roll(key, IMAGES, -1, 2)))(KEYS)
    expected = {
        (rows, columns): np.roll(IMAGES, (rows, columns), (1, 2)).tobytes()
        for rows in range(-1, 3)
        for columns in range(-1, 3)
    }
    found = {np.asarray(batch).tobytes() for batch in rolled}
    assert found == set(expected.values())


def test_flips_are_of_all_images_or_none():
    flipped = jax.jit(jax.vmap(lambda key: views.flip(key, IMAGES)))(KEYS)
    found = {np.asarray(batch).tobytes() for batch in flipped}
    assert found == {IMAGES.tobytes(), IMAGES[:, :, ::-1].tobytes()}


def test_crops_are_one_box_of_all_images():
    see = jax.jit(views.resized_crop)
    draw = jax.jit(lambda key: draw_resized_crop(key, 8, 8, 0.08))
    for key in KEYS[:4]:
        found = np.asarray(see(key, IMAGES, 0.08))
        top, left, height, width = map(int, draw(key))
        for image, crop in zip(IMAGES, found, strict=True):
            box = image[top : top + height, left : left + width]
            assert crop.min() >= box.min() - 1e-5 and crop.max() <= box.max() + 1e-5


@pytest.mark.parametrize("least", [0.08, 0.5, 0.9])
def test_boxes_have_at_least_the_area_that_is_traced(least):
    draw = jax.jit(
        jax.vmap(lambda key, a: draw_resized_crop(key, 64, 64, a), (0, None))
    )
    _, _, height, width = draw(KEYS, least)
    areas = np.asarray(height * width) / 64**2
    assert areas.min() > least - 0.03  # sides are whole pixels
    assert areas.min() < least + 0.15


def test_padded_crops_are_shifts_with_zeros():
    found = jax.jit(jax.vmap(lambda key: views.pad_crop(key, IMAGES, 1)))(KEYS)
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = {
        padded[:, i : i + 8, j : j + 8].tobytes() for i in range(3) for j in range(3)
    }
    assert {np.asarray(batch).tobytes() for batch in found} == expected
