"""Tests of `augment.operations` against values of the official code, PIL and SciPy."""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gift_jax import augment
from gift_jax.augment import operations


@pytest.fixture(scope="module")
def golden():
    path = pathlib.Path(__file__).parents[1] / "fixtures" / "augment.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return {
        name: array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        for name, array in arrays.items()
    }


def random_images(count, side=32, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(count, side, side, channels)), jnp.float32)


def scale(image, sx, sy):
    return augment.warp(image, operations.scale_matrix(sx, sy), jnp.zeros(2))


def rotate(image, theta):
    return augment.warp(image, operations.rotation_matrix(theta), jnp.zeros(2))


def translate(image, rows, cols):
    return augment.warp(image, jnp.eye(2), jnp.array([rows, cols]))


# --- Operations against the official code -------------------------------------------


@pytest.mark.parametrize(
    ("operation", "parameters", "expected", "tolerance"),
    [
        (scale, ("scale_sx", "scale_sy"), "scale_out", 1e-4),
        (rotate, ("rotate_theta",), "rotate_out", 1e-4),
        (
            translate,
            ("crop_shift_rows", "crop_shift_cols"),
            "crop_out",
            0,
        ),
        (
            augment.cutout,
            ("cutout_center_rows", "cutout_center_cols"),
            "cutout_out",
            0,
        ),
        (augment.brightness, ("brightness_u",), "brightness_out", 1e-6),
        (augment.saturation, ("saturation_u",), "saturation_out", 1e-6),
        (augment.contrast, ("contrast_u",), "contrast_out", 1e-6),
    ],
)
def test_operation_equals_official(golden, operation, parameters, expected, tolerance):
    actual = jax.jit(jax.vmap(operation))(
        golden["images"], *(jnp.asarray(golden[name]) for name in parameters)
    )
    np.testing.assert_allclose(actual, golden[expected], rtol=0, atol=tolerance)


def test_flip_equals_official(golden):
    flipped = golden["flip_u"] < 0.5
    actual = jax.vmap(augment.flip)(golden["images"], flipped)
    np.testing.assert_array_equal(actual, golden["flip_out"])


@pytest.mark.parametrize(("row", "col"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_factor_crop_equals_official(golden, row, col):
    crop = functools.partial(augment.factor_crop, row=row, col=col, factor=2)
    actual = jax.vmap(crop)(golden["images"])
    expected = golden[f"factor2_{row}{col}"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


# --- Operations against other references --------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    matrix=st.lists(st.floats(-1.5, 1.5, width=32), min_size=4, max_size=4),
    shift=st.tuples(st.floats(-40, 40, width=32), st.floats(-40, 40, width=32)),
    shape=st.sampled_from([(8, 8), (9, 12)]),
)
def test_warp_equals_scipy_affine(matrix, shift, shape):
    matrix, shift = np.reshape(matrix, (2, 2)), np.array(shift)
    image = np.random.default_rng(1).normal(size=(*shape, 2)).astype(np.float32)
    center = (np.array(shape) - 1) / 2
    expected = np.stack(
        [
            scipy.ndimage.affine_transform(
                channel.astype(np.float64),
                matrix,
                offset=center + shift - matrix @ center,
                order=1,
                mode="grid-constant",
            )
            for channel in np.moveaxis(image, -1, 0)
        ],
        axis=-1,
    )
    actual = jax.jit(augment.warp)(image, jnp.array(matrix), jnp.array(shift))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_resized_crop_equals_pil_crop_and_antialiased_resize(data):
    height, width = 12, 9
    crop_height = data.draw(st.integers(1, height))
    crop_width = data.draw(st.integers(1, width))
    top = data.draw(st.integers(0, height - crop_height))
    left = data.draw(st.integers(0, width - crop_width))
    image = np.random.default_rng(2).normal(size=(height, width, 2)).astype(np.float32)
    expected = np.stack(
        [
            Image.fromarray(channel)
            .crop((left, top, left + crop_width, top + crop_height))
            .resize((width, height), Image.Resampling.BILINEAR)
            for channel in np.moveaxis(image, -1, 0)
        ],
        axis=-1,
    )
    crop = jax.jit(augment.resized_crop)
    actual = crop(image, top, left, crop_height, crop_width)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(top=st.integers(0, 6), left=st.integers(0, 6))
def test_pad_crop_is_a_translation(top, left):
    image = random_images(1, side=8)[0]
    pad_crop = jax.jit(augment.pad_crop, static_argnames="padding")
    np.testing.assert_array_equal(
        pad_crop(image, top, left, padding=3),
        jax.jit(translate)(image, top - 3, left - 3),
    )


def test_factor_crop_leaves_out_the_remainder():
    image = random_images(1, side=28)[0]
    np.testing.assert_allclose(
        augment.factor_crop(image, 2, 0, 3),
        jax.image.resize(image[18:27, :9], image.shape, "bilinear"),
        atol=1e-5,
    )


# --- Invariances of the operations --------------------------------------------------


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 12, 3)])
@pytest.mark.parametrize(
    "identity",
    [
        lambda x: augment.flip(augment.flip(x, True), True),
        lambda x: augment.flip(x, False),
        lambda x: rotate(x, 0.0),
        lambda x: scale(x, 1.0, 1.0),
        lambda x: translate(x, 0, 0),
        lambda x: augment.pad_crop(x, 4, 4, 4),
        lambda x: augment.resized_crop(x, 0, 0, *x.shape[:2]),
        lambda x: augment.factor_crop(x, 0, 0, 1),
        lambda x: augment.mixup(x, 1 - x, 1.0),
        lambda x: augment.cutmix(x, 1 - x, jnp.array([3, 3, 3, 8])),
    ],
)
def test_identity_parameters_return_the_image_itself(identity, shape):
    image = jnp.asarray(np.random.default_rng(3).normal(size=shape), jnp.float32)
    np.testing.assert_array_equal(jax.jit(identity)(image), image)


@pytest.mark.parametrize(
    "identity",
    [
        lambda x: augment.brightness(x, 0.5),
        lambda x: augment.saturation(x, 0.5),
        lambda x: augment.contrast(x, 0.5),
        lambda x: rotate(rotate(x, np.pi / 2), -np.pi / 2),
    ],
)
def test_identity_parameters_return_the_image_to_rounding(identity):
    image = random_images(1, side=8)[0]
    np.testing.assert_allclose(jax.jit(identity)(image), image, atol=1e-5)


def test_rotation_is_anticlockwise():
    image = random_images(1, side=9)[0]
    rotated = jax.jit(rotate)(image, np.pi / 2)
    np.testing.assert_allclose(rotated, np.rot90(image), atol=1e-5)


def test_translation_moves_up_and_left_and_fills_with_zeros():
    image = random_images(1, side=8)[0]
    moved = translate(image, 3, 1)
    np.testing.assert_array_equal(moved[:5, :7], image[3:, 1:])
    assert not moved[5:].any()
    assert not moved[:, 7:].any()
    assert not translate(image, -8, 0).any()


@pytest.mark.parametrize("side", [8, 9, 10, 28, 32])
def test_cutout_hole_size(side):
    image = jnp.ones((side, side, 3))
    hole = int(side * 0.5 + 0.5)
    inside = augment.cutout(image, side // 2, side // 2)
    assert int((inside == 0).sum()) == hole * hole * 3
    rows_at_border = (hole + 1) // 2
    at_border = augment.cutout(image, 0, side // 2)
    assert int((at_border == 0).sum()) == rows_at_border * hole * 3
    assert not at_border[0, side // 2].any()


def test_cutmix_takes_exactly_the_box_from_the_partner():
    image, partner = jnp.zeros((8, 8, 3)), jnp.ones((8, 8, 3))
    mixed = augment.cutmix(image, partner, jnp.array([1, 2, 4, 8]))
    assert float(mixed.mean()) == 3 * 6 / 64
    assert mixed[1:4, 2:8].all()


@settings(max_examples=20, deadline=None)
@given(lam=st.floats(0, 1, width=32))
def test_mixup_is_the_convex_combination(lam):
    image, partner = random_images(2, side=8)
    expected = lam * np.float64(image) + (1 - lam) * np.float64(partner)
    np.testing.assert_allclose(augment.mixup(image, partner, lam), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_shuffled_strips_are_permuted(factor):
    # Strips of side // factor, the last with the rest.
    image = np.asarray(random_images(1, side=8)[0])
    width = 8 // factor
    ends = [*range(width, width * factor, width), 8]
    for order in itertools.permutations(range(factor)):
        strips = np.split(image, ends[:-1], axis=1)
        expected = np.concatenate([strips[i] for i in order], axis=1)
        found = augment.shuffle_strips(image, np.array(order), axis=1)
        np.testing.assert_array_equal(found, expected)
        turned = augment.shuffle_strips(image.swapaxes(0, 1), np.array(order), axis=0)
        np.testing.assert_array_equal(turned, expected.swapaxes(0, 1))
