"""Tests of `augment.views`: the draws and what they depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gift_jax import augment
from gift_jax.augment import operations, views
from gift_jax.data import preprocess
from gift_jax.runtime import errors

OFFICIAL = "color_crop_cutout_flip_scale_rotate"
EVERYTHING = augment.AugmentSpec(
    factor=2,
    shuffle=2,
    resized_crop=0.3,
    pad_crop=3,
    flip=True,
    diffaug=OFFICIAL,
    mix="cutmix",
)
KEY = jax.random.key(0)

make_views = jax.jit(augment.make_views, static_argnames=("spec", "normalization"))


def random_images(count, side=32, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(count, side, side, channels)), jnp.float32)


def many_keys(count):
    return jax.random.split(KEY, count)


@functools.partial(jax.jit, static_argnames="spec")
def augment_images(keys, image, spec):
    return jax.vmap(lambda key: augment.augment_image(key, image, spec))(keys)


def many_views(image, count, **fields):
    """(count, H, W, C): one image augmented with as many keys."""
    spec = augment.AugmentSpec(**fields)
    return np.asarray(augment_images(many_keys(count), image, spec))


# --- Distributions of the draws -----------------------------------------------------


def test_keys_that_draw_for_a_whole_batch_are_refused():
    key = jax.random.key(0, impl="rbg")
    with pytest.raises(ValueError, match=r"rbg draws views that depend on their batch"):
        augment.make_views(
            key, random_images(2), 0, jnp.arange(2), augment.AugmentSpec(flip=True)
        )


def test_one_geometric_operation_is_drawn_per_image():
    draw = functools.partial(
        views.draw_warp, height=32, width=32, names=("crop", "scale", "rotate")
    )
    matrices, shifts = jax.jit(jax.vmap(draw))(many_keys(6000))
    matrices, shifts = np.asarray(matrices), np.asarray(shifts)
    rotated = matrices[:, 0, 1] != 0
    scaled = ~rotated & (matrices != np.eye(2)).any((1, 2))
    cropped = ~rotated & ~scaled
    # Three standard deviations of a share of a third are 0.018.
    for drawn in (rotated, scaled, cropped):
        assert abs(drawn.mean() - 1 / 3) < 0.02

    angles = np.rad2deg(np.arctan2(matrices[rotated, 0, 1], matrices[rotated, 0, 0]))
    assert np.abs(angles).max() <= 15
    assert angles.min() < -14.5
    assert angles.max() > 14.5
    assert not shifts[~cropped].any()

    scales = matrices[scaled][:, [0, 1], [0, 1]]
    assert 1 / 1.2 <= scales.min() < 0.85
    assert 1.18 < scales.max() <= 1.2
    assert abs(np.corrcoef(scales.T)[0, 1]) < 0.1
    assert not matrices[scaled][:, [0, 1], [1, 0]].any()

    for axis_shifts in shifts[cropped].T:
        values, counts = np.unique(axis_shifts, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(-4, 5))
        assert counts.min() > 0.7 * counts.mean()


@pytest.mark.parametrize(("side", "farthest"), [(8, 1), (28, 4)])
def test_largest_crop_shift(side, farthest):
    draw = functools.partial(views.draw_warp, height=side, width=side, names=("crop",))
    _, shifts = jax.jit(jax.vmap(draw))(many_keys(1000))
    assert int(jnp.abs(shifts).max()) == farthest


@pytest.mark.parametrize("factor", [2, 3])
def test_factor_draws_every_cell_and_sometimes_the_whole(factor):
    side = 3 * factor
    # Cells of constant value stay recognisable when they are enlarged.
    cells = jnp.arange(factor**2, dtype=jnp.float32).reshape(factor, factor)
    image = jnp.kron(cells, jnp.ones((3, 3)))[..., None]
    drawn = many_views(image, 4000, factor=factor).reshape(-1, side * side)
    is_cell = np.ptp(drawn, axis=1) < 1e-5
    assert abs(is_cell.mean() - (1 - 1 / factor**2)) < 0.02
    np.testing.assert_array_equal(drawn[~is_cell][0], image.ravel())
    counts = np.bincount(np.round(drawn[is_cell, 0]).astype(int))
    assert len(counts) == factor**2
    assert counts.min() > 0.8 * counts.mean()


@jax.jit
def resized_crop_boxes(keys, min_area):
    draw = functools.partial(views.draw_resized_crop, height=32, width=32)
    return jax.vmap(lambda key: draw(key, min_area=min_area))(keys)


def test_resized_crop_of_full_area_is_the_whole_image():
    boxes = np.stack(resized_crop_boxes(many_keys(4000), 1.0), axis=1)
    assert (boxes == [0, 0, 32, 32]).all()


def test_resized_crop_boxes_follow_torchvision():
    boxes = resized_crop_boxes(many_keys(4000), 0.08)
    top, left, height, width = (np.asarray(array) for array in boxes)
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 32).all()
    assert (left + width <= 32).all()
    areas, aspects = height * width / 1024, width / height
    assert 0.06 < areas.min() < 0.1  # sides are rounded to pixels
    assert areas.max() > 0.95
    # The extremes of small boxes are widened by that rounding.
    large = areas > 0.3
    assert aspects[large].min() > 0.7
    assert aspects[large].max() < 1 / 0.7
    assert abs(np.median(aspects) - 1) < 0.03
    # Mean area of 20,000 boxes of torchvision's rule, drawn here with NumPy.
    assert abs(areas.mean() - torchvision_mean_area()) < 0.015
    # Corners are uniform over the places where the box fits.
    for corner, room in ((top, 32 - height), (left, 32 - width)):
        assert (corner[room > 0] == 0).any()
        assert (corner == room)[room > 0].any()
        shares = (corner / np.maximum(room, 1))[room > 4]
        assert abs(shares.mean() - 0.5) < 0.03
        assert abs(shares.std() - 0.3) < 0.05  # 12 ** -0.5, more for few places


def torchvision_mean_area(boxes=20_000, side=32, min_area=0.08):
    rng = np.random.default_rng(0)
    areas = side**2 * rng.uniform(min_area, 1, (boxes, 10))
    aspects = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), (boxes, 10)))
    heights = np.round(np.sqrt(areas / aspects))
    widths = np.round(np.sqrt(areas * aspects))
    fits = (heights <= side) & (widths <= side)
    first = fits.argmax(1)[:, None]
    chosen = np.take_along_axis(heights * widths, first, 1)[:, 0]
    return np.where(fits.any(1), chosen, side**2).mean() / side**2


def test_shuffle_draws_every_order_of_columns_and_rows():
    image = jnp.arange(4.0).reshape(2, 2, 1)
    drawn = many_views(image, 2000, shuffle=2).reshape(-1, 4)
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    # Whole columns, then whole rows: neighbours remain neighbours.
    expected = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    np.testing.assert_array_equal(orders, expected)
    assert np.abs(counts / 2000 - 0.25).max() < 0.035


def test_single_mode_draws_one_operation_of_the_strategy():
    names = ("color", "crop", "flip", "rotate")
    image = random_images(1, side=8)[0]
    drawn = many_views(image, 2000, diffaug="_".join(names), diffaug_mode="single")
    alone = [many_views(image, 2000, diffaug=name) for name in names]
    same = np.stack([np.abs(drawn - one).max((1, 2, 3)) < 1e-5 for one in alone])
    assert same.any(0).all()
    # A crop or flip can leave the image as it is; colours and angles never do.
    for place in (0, 3):
        assert abs(same[place].mean() - 1 / 4) < 0.035


def test_flip_draws_half():
    image = jnp.arange(8.0)[None, :, None] * jnp.ones((8, 1, 1))
    drawn = many_views(image, 2000, flip=True)
    assert abs((drawn[:, 0, 0, 0] == 7).mean() - 0.5) < 0.035
    np.testing.assert_array_equal(many_views(image, 2000, diffaug="flip"), drawn)


def test_pad_crop_draws_every_shift():
    image = jnp.zeros((8, 8, 1)).at[4, 4].set(1.0)
    place = many_views(image, 1000, pad_crop=2).sum(0)[..., 0]
    assert (place[2:7, 2:7] > 15).all()
    assert place[2:7, 2:7].sum() == place.sum() == 1000


def test_color_draws_stay_in_the_official_ranges():
    image = jnp.array([-1.0, 1.0]).reshape(1, 2, 1) * jnp.ones((4, 1, 3))
    drawn = many_views(image, 2000, diffaug="color")
    # A grey picture has no saturation: half the spread is u + 0.5, the mean u - 0.5.
    spread, mean = np.ptp(drawn, axis=(1, 2, 3)) / 2, drawn.mean((1, 2, 3))
    assert 0.5 <= spread.min() < 0.52
    assert 1.48 < spread.max() <= 1.5
    assert -0.5 - 1e-6 < mean.min() < -0.48
    assert 0.48 < mean.max() < 0.5 + 1e-6
    assert abs(np.corrcoef(spread, mean)[0, 1]) < 0.08
    # Channels about a zero mean: their spread is scaled by 2u and by contrast.
    colored = jnp.broadcast_to(jnp.array([-1.0, 0.0, 1.0]), (4, 2, 3))
    drawn = many_views(colored, 2000, diffaug="color")
    by_contrast = drawn[:, 0, 0, 2] - drawn[:, 0, 0, 1]
    assert 0 <= by_contrast.min() < 0.05
    assert 2.5 < by_contrast.max() <= 3
    # The same keys: brightness, saturation and contrast are drawn apart.
    saturation = by_contrast / spread
    assert abs(np.corrcoef(saturation, mean)[0, 1]) < 0.08
    assert abs(np.corrcoef(saturation, spread)[0, 1]) < 0.08


@pytest.mark.parametrize("side", [8, 9])
def test_cutout_holes_are_placed_as_in_the_official_code(side):
    hole = int(side * 0.5 + 0.5)
    image = jnp.ones((side, side, 1))
    drawn = many_views(image, 3000, diffaug="cutout")[..., 0]
    rows = (drawn == 0).any(2).sum(1)
    centers = np.arange(side + 1 - hole % 2)
    indices = centers[:, None] + np.arange(hole) - hole // 2
    expected = [len(set(np.clip(line, 0, side - 1))) for line in indices]
    sizes, counts = np.unique(expected, return_counts=True)
    drawn_sizes, drawn_counts = np.unique(rows, return_counts=True)
    np.testing.assert_array_equal(drawn_sizes, sizes)
    np.testing.assert_allclose(
        drawn_counts / 3000, counts / len(centers), rtol=0, atol=0.03
    )


def test_cutmix_boxes():
    lam = jnp.linspace(0, 1, 2000)
    draw = jax.vmap(lambda key, lam: views.draw_cutmix_box(key, 32, 32, lam))
    top, left, bottom, right = np.asarray(jax.jit(draw)(many_keys(2000), lam)).T
    half = (32 * np.sqrt(np.float32(1) - np.asarray(lam))).astype(int) // 2
    for first, last in ((top, bottom), (left, right)):
        assert (first >= 0).all()
        assert (last <= 32).all()
        assert (first <= last).all()
        uncut = (first > 0) & (last < 32)
        assert uncut.sum() > 500
        np.testing.assert_array_equal((last - first)[uncut], 2 * half[uncut])
        assert (last - first <= 2 * half).all()


def test_cutmix_boxes_are_centred_on_any_pixel():
    draw = jax.vmap(lambda key: views.draw_cutmix_box(key, 8, 12, jnp.float32(0.75)))
    top, left, bottom, right = np.asarray(jax.jit(draw)(many_keys(3000))).T
    # Of a quarter of the area: 4 x 6 pixels, unless the border cuts them.
    for first, last, side in ((top, bottom, 8), (left, right, 12)):
        uncut = last - first == side // 2
        centers = np.unique((first + last)[uncut] // 2)
        np.testing.assert_array_equal(centers, np.arange(side // 4, 3 * side // 4 + 1))
        assert abs(uncut.mean() - (side // 2 + 1) / side) < 0.03
        # Either border by itself.
        assert abs((first > 0).mean() - (side - side // 4 - 1) / side) < 0.03
        assert abs((last < side).mean() - 3 / 4) < 0.03


# --- Order of the operations --------------------------------------------------------


def test_holes_are_cut_after_rotating():
    drawn = many_views(jnp.ones((8, 8, 1)), 200, diffaug="rotate_cutout")[..., 0]
    # By at most 15 degrees no pixel of a side of 8 is wholly outside.
    hole = drawn == 0
    inside = ~(hole[:, [0, -1]].any((1, 2)) | hole[:, :, [0, -1]].any((1, 2)))
    assert inside.sum() > 10
    rows, cols = hole.any(2), hole.any(1)
    assert (rows.sum(1) == 4)[inside].all()
    assert (cols.sum(1) == 4)[inside].all()
    assert (hole.sum((1, 2)) == 16)[inside].all()


def test_what_rotation_fills_has_no_color():
    image = jnp.ones((16, 16, 3))
    outside = many_views(image, 200, diffaug="rotate") == 0
    assert outside[:, 0, 0].mean() > 0.3
    assert not many_views(image, 200, diffaug="color_rotate")[outside].any()


def test_strips_are_shuffled_then_cropped_then_shifted():
    image = random_images(1, side=8)[0]
    spec = augment.AugmentSpec(shuffle=2, resized_crop=0.3, pad_crop=2)

    @jax.jit
    @jax.vmap
    def by_hand(key):
        keys = {p.name: jax.random.fold_in(key, p.value) for p in views._Purpose}
        across, down = (
            jax.random.permutation(k, 2) for k in jax.random.split(keys["SHUFFLE"])
        )
        made = operations.shuffle_strips(image, across, axis=1)
        made = operations.shuffle_strips(made, down, axis=0)
        box = views.draw_resized_crop(keys["RESIZED_CROP"], 8, 8, 0.3)
        made = operations.resized_crop(made, *box)
        top, left = jax.random.randint(keys["PAD_CROP"], (2,), 0, 5)
        return operations.pad_crop(made, top, left, 2)

    found = augment_images(many_keys(8), image, spec)
    np.testing.assert_allclose(found, by_hand(many_keys(8)), rtol=0, atol=1e-5)


# --- What is augmented --------------------------------------------------------------


def test_default_spec_returns_the_images():
    images = random_images(5, side=8)
    indices = jnp.array([4, 0])
    drawn = make_views(KEY, images, 3, indices, augment.AugmentSpec())
    np.testing.assert_array_equal(drawn, images[indices])


def test_pixels_are_normalised_before_they_are_augmented():
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    spec = augment.AugmentSpec(diffaug="cutout")
    drawn = make_views(
        KEY,
        pixels,
        2,
        jnp.arange(4),
        spec,
        normalization=preprocess.Normalization(mean, std),
    )
    images = jnp.asarray((pixels / 255 - mean) / std, jnp.float32)
    expected = make_views(KEY, images, 2, jnp.arange(4), spec)
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-5)


def test_images_that_cannot_be_augmented_are_refused():
    spec = augment.AugmentSpec(factor=9)
    with pytest.raises(TypeError, match="dtype uint8, expected float"):
        augment.make_views(
            KEY, jnp.zeros((2, 8, 8, 3), jnp.uint8), 0, jnp.array([0]), spec
        )
    with pytest.raises(ValueError, match=r"shape \(8, 3\), expected \(H, W, C\)"):
        augment.make_views(KEY, jnp.zeros((8, 8, 3)), 0, jnp.array([0]), spec)
    for field in ("factor", "shuffle"):
        spec = augment.AugmentSpec(**{field: 9})
        with pytest.raises(errors.InputError, match=f"{field} is 9, expected at .* 8"):
            augment.make_views(KEY, jnp.zeros((2, 8, 8, 3)), 0, jnp.array([0]), spec)


# --- Views --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    indices=st.lists(st.integers(0, 6), min_size=7, max_size=7),
    view=st.integers(0, 2**31 - 1),
)
def test_a_view_does_not_depend_on_its_batch(indices, view):
    images = random_images(7, side=8)
    whole = make_views(KEY, images, view, jnp.arange(7), EVERYTHING)
    batch = make_views(KEY, images, view, jnp.array(indices), EVERYTHING)
    np.testing.assert_allclose(batch, whole[np.array(indices)], rtol=0, atol=1e-5)
    assert np.isfinite(whole).all()


@pytest.mark.slow
def test_a_view_does_not_depend_on_the_batch_size():
    spec = augment.AugmentSpec(diffaug=OFFICIAL)
    images = random_images(4, side=8, channels=1).astype(jnp.float16)
    whole = make_views(KEY, images, 9, jnp.arange(4), spec)
    assert whole.shape == (4, 8, 8, 1)
    assert whole.dtype == jnp.float32
    batch = make_views(KEY, images, 9, jnp.array([2]), spec)
    np.testing.assert_allclose(batch, whole[2:3], rtol=0, atol=1e-5)


def test_views_are_repeatable_and_differ_by_key_view_and_image():
    spec = augment.AugmentSpec(diffaug=OFFICIAL)
    image = random_images(1, side=8, channels=1).astype(jnp.float16)
    images, indices = jnp.repeat(image, 4, axis=0), jnp.arange(4)
    first = np.asarray(make_views(KEY, images, 0, indices, spec))
    np.testing.assert_array_equal(make_views(KEY, images, 0, indices, spec), first)
    others = [
        make_views(KEY, images, 1, indices, spec),
        make_views(jax.random.key(1), images, 0, indices, spec),
        first[[1, 2, 3, 0]],
    ]
    for other in others:
        assert np.isfinite(other).all()
        assert (np.abs(first - other).max((1, 2, 3)) > 1e-3).all()


def test_an_added_operation_leaves_the_draws_of_the_others():
    images = jnp.ones((64, 8, 8, 3))
    indices = jnp.arange(64)
    holes = make_views(KEY, images, 0, indices, augment.AugmentSpec(diffaug="cutout"))
    richer = augment.AugmentSpec(factor=2, flip=True, diffaug="color_cutout")
    drawn = make_views(KEY, images, 0, indices, richer)
    np.testing.assert_array_equal(drawn == 0, holes == 0)


def test_jitted_vmapped_and_scanned_equal_eager_singles():
    images = random_images(3, side=28, channels=1)
    spec = augment.AugmentSpec(diffaug="flip_rotate")
    view_key = jax.random.fold_in(KEY, 5)
    singles = [
        augment.augment_image(jax.random.fold_in(view_key, i), images[i], spec)
        for i in range(3)
    ]
    jitted = make_views(KEY, images, 5, jnp.arange(3), spec)
    np.testing.assert_allclose(jitted, jnp.stack(singles), rtol=0, atol=1e-4)

    def body(carry, view):
        return carry, augment.make_views(KEY, images, view, jnp.arange(3), spec)

    _, scanned = jax.lax.scan(body, None, jnp.arange(4, 7))
    np.testing.assert_allclose(scanned[1], jitted, rtol=0, atol=1e-4)


# --- Mixes --------------------------------------------------------------------------


def test_cutmix_combines_a_view_with_one_other_view():
    spec = augment.AugmentSpec(flip=True, diffaug="color", mix="cutmix")
    images, indices = random_images(12, side=8), jnp.arange(12)
    unmixed = dataclasses.replace(spec, mix="none")
    plain = np.asarray(make_views(KEY, images, 2, indices, unmixed))
    mixed = np.asarray(make_views(KEY, images, 2, indices, spec))
    for image, result in zip(plain, mixed, strict=True):
        foreign = np.abs(result - image).max(-1) > 1e-5
        explained = [
            np.abs((result - partner)[foreign]).max(initial=0) < 1e-5
            for partner in plain
        ]
        assert any(explained)
    assert (np.abs(mixed - plain).max((1, 2, 3)) > 1e-5).sum() > 6


def test_mix_weights_and_partners():
    alpha = 0.4
    # One channel per image: what is mixed in can be read off the channels.
    count = 5
    images = jnp.eye(count)[:, None, None, :] * jnp.ones((1, 2, 2, 1))
    spec = augment.AugmentSpec(mix="mixup", mix_alpha=alpha)
    draw = jax.vmap(lambda view: make_views(KEY, images, view, jnp.array([1]), spec))
    weights = np.asarray(draw(jnp.arange(4000)))[:, 0, 0, 0]
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    alone = weights[:, 1] == 1
    assert abs(alone.mean() - 1 / count) < 0.03
    own = weights[~alone, 1]
    assert abs(own.mean() - 0.5) < 0.03
    # Variance of Beta(a, a).
    assert abs(own.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    partners = np.delete(weights[~alone], 1, axis=1).argmax(1)
    shares = np.bincount(partners, minlength=count - 1) / len(partners)
    np.testing.assert_allclose(shares, 1 / (count - 1), atol=0.03)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_partners_and_weights_are_those_of_the_views(mix):
    # Of constant images, one channel each: what is mixed in, and how much, is the
    # mean of the channels.
    count = 6
    images = jnp.eye(count)[:, None, None, :] * jnp.ones((1, 8, 12, 1))
    spec = augment.AugmentSpec(flip=True, mix=mix, mix_alpha=0.7)
    indices = jnp.arange(count)

    def draw(view):
        return (
            augment.make_views(KEY, images, view, indices, spec),
            *augment.mix_partners(KEY, count, view, indices, spec, (8, 12)),
        )

    drawn = jax.device_get(jax.jit(jax.vmap(draw))(jnp.arange(5)))
    found, partners, weights = (a.reshape(5 * count, *a.shape[2:]) for a in drawn)
    assert partners.dtype == np.int32
    assert weights.dtype == np.float32
    shares = found.mean((1, 2))
    own, other = np.tile(np.eye(count), (5, 1)), np.eye(count)[partners]
    expected = weights[:, None] * own + (1 - weights[:, None]) * other
    np.testing.assert_allclose(shares, expected, atol=1e-5)
    assert ((weights >= 0) & (weights <= 1)).all()
    assert np.ptp(weights) > 0.5
    assert len(np.unique(partners)) == count


def test_the_views_of_stored_labels_remain_what_they_were():
    """Labels that are stored are those of views drawn by these numbers."""
    assert {purpose.name: purpose.value for purpose in views._Purpose} == {
        "FACTOR": 0,
        "RESIZED_CROP": 1,
        "PAD_CROP": 2,
        "FLIP": 3,
        "COLOR": 4,
        "GEOMETRIC": 5,
        "CROP": 6,
        "SCALE": 7,
        "ROTATE": 8,
        "CUTOUT": 9,
        "PARTNER": 10,
        "MIX": 11,
        "SHUFFLE": 12,
        "SINGLE": 13,
    }
    spec = augment.AugmentSpec(mix="cutmix")
    partners = jax.jit(
        lambda view: augment.mix_partners(KEY, 6, view, jnp.arange(6), spec, (8, 8))[0]
    )
    np.testing.assert_array_equal(partners(0), [5, 3, 5, 5, 3, 0])
    np.testing.assert_array_equal(partners(3), [3, 2, 0, 3, 1, 5])


def test_without_a_mix_every_image_is_its_own_partner():
    partners, weights = augment.mix_partners(
        KEY, 9, 3, jnp.array([4, 0]), augment.AugmentSpec(flip=True), (8, 8)
    )
    np.testing.assert_array_equal(partners, [4, 0])
    np.testing.assert_array_equal(weights, [1, 1])


@pytest.mark.parametrize(
    "mix",
    ["none", *(pytest.param(m, marks=pytest.mark.slow) for m in ("mixup", "cutmix"))],
)
def test_images_of_a_batch_give_the_views_of_the_whole_set(mix):
    pixels = np.random.default_rng(6).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    normalization = preprocess.Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    spec = dataclasses.replace(EVERYTHING, mix=mix)
    indices = np.array([7, 2, 2, 8])
    partners, _ = augment.mix_partners(KEY, 9, 5, jnp.array(indices), spec, (8, 8))

    @jax.jit
    def of_batch(images, partner_images):
        return augment.augment_batch(
            KEY,
            images,
            5,
            indices,
            spec,
            normalization,
            partners=(partners, partner_images),
        )

    # Two programs, which XLA may round otherwise, as it does under other flags.
    np.testing.assert_allclose(
        of_batch(pixels[indices], pixels[np.asarray(partners)]),
        make_views(KEY, pixels, 5, indices, spec, normalization=normalization),
        rtol=0,
        atol=1e-6,
    )


def test_a_mix_needs_partners():
    spec = augment.AugmentSpec(mix="mixup")
    with pytest.raises(ValueError, match="mix 'mixup' need the partners"):
        augment.augment_batch(KEY, random_images(2, 8), 0, jnp.arange(2), spec)


def test_views_can_be_differentiated():
    image = random_images(1, side=8)
    weights = random_images(1, side=8, seed=1)
    spec = augment.AugmentSpec(factor=2, diffaug="rotate")

    def value(image):
        drawn = augment.make_views(KEY, image, 1, jnp.array([0]), spec)
        return jnp.vdot(weights, drawn)

    # These operations are linear in the image, so the gradient gives the value.
    total, gradient = jax.jit(jax.value_and_grad(value))(image)
    np.testing.assert_allclose(jnp.vdot(gradient, image), total, rtol=1e-4)


def test_floats_are_not_taken_for_pixels():
    """Those in [0, 1] would be divided by 255, and views of them be all but black."""
    normalization = preprocess.Normalization(mean=(0.5,), std=(0.5,))
    images = np.random.default_rng(0).uniform(size=(3, 8, 8, 1)).astype(np.float32)
    view = functools.partial(make_views, KEY, view=0, indices=jnp.arange(3))
    with pytest.raises(TypeError, match=r"images are float32, but .* give uint8"):
        view(images, spec=augment.AugmentSpec(), normalization=normalization)
    pixels = np.round(255 * images).astype(np.uint8)
    for some in (pixels, pixels.astype(np.int64)):
        found = view(some, spec=augment.AugmentSpec(), normalization=normalization)
        np.testing.assert_allclose(found, pixels / 127.5 - 1, atol=1e-6)
