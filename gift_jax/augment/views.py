"""Random views: the parameters of each operation, drawn from a key.

Every draw is a function of (key, view, image index) alone, and each purpose has a
key of its own: a view does not depend on the batch it is in, and switching one
operation on leaves the draws of the others as they were.
"""

import enum
import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gift_jax import streams
from gift_jax.augment import operations
from gift_jax.augment.spec import AugmentSpec
from gift_jax.data.preprocess import Normalization
from gift_jax.runtime.errors import InputError

# DiffAug's ratio_crop_pad, ratio_scale and ratio_rotate, `utils/transforms.py` of the
# official code (https://github.com/LINs-lab/GIFT).
_SHIFT_RATIO = 0.125
_SCALE_RATIO = 1.2
_ROTATE_DEGREES = 15.0
_GEOMETRIC = ("crop", "scale", "rotate")

# torchvision's RandomResizedCrop.
_ASPECT_RATIOS = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10


class _Purpose(enum.IntEnum):
    """What a key is for. Renumbering changes every view of every stored label."""

    FACTOR = 0
    RESIZED_CROP = 1
    PAD_CROP = 2
    FLIP = 3
    COLOR = 4
    GEOMETRIC = 5
    CROP = 6
    SCALE = 7
    ROTATE = 8
    CUTOUT = 9
    PARTNER = 10
    MIX = 11
    SHUFFLE = 12
    SINGLE = 13


def _key_for(image_key: jax.Array, purpose: _Purpose) -> jax.Array:
    return jax.random.fold_in(image_key, int(purpose))


def _uniform(
    key: jax.Array,
    shape: tuple[int, ...],
    low: ArrayLike = 0.0,
    high: ArrayLike = 1.0,
) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32, low, high)


def draw_resized_crop(
    key: jax.Array, height: int, width: int, min_area: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws the box of torchvision's RandomResizedCrop.

    The first of ten candidates that fits is taken, the whole image if none does:
    torchvision's own fallback for images of an aspect from 3/4 to 4/3.

    Args:
      key: Typed key.
      height: H of the image.
      width: W of the image.
      min_area: Smallest area, as a fraction of the image, may be traced; the
        largest is 1.

    Returns:
      top, left, height, width of the box: int32 scalars.
    """
    area_key, aspect_key, corner_key = jax.random.split(key, 3)
    low, high = (math.log(ratio) for ratio in _ASPECT_RATIOS)
    areas = height * width * _uniform(area_key, (_CROP_ATTEMPTS,), min_area, 1.0)
    aspects = jnp.exp(_uniform(aspect_key, (_CROP_ATTEMPTS,), low, high))
    heights = jnp.round(jnp.sqrt(areas / aspects)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas * aspects)).astype(jnp.int32)

    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = jnp.argmax(fits)
    crop_height = jnp.where(fits[first], heights[first], height)
    crop_width = jnp.where(fits[first], widths[first], width)
    room = jnp.stack([height - crop_height, width - crop_width])
    top, left = jax.random.randint(corner_key, (2,), 0, room + 1)
    return top, left, crop_height, crop_width


def draw_warp(
    image_key: jax.Array, height: int, width: int, names: tuple[str, ...]
) -> tuple[jax.Array, jax.Array]:
    """Draws one of the named geometric operations, as arguments of `warp`.

    The official code draws the operation once per batch and its parameters per
    image. Here both are drawn per image, since a view must not depend on its batch.

    Args:
      image_key: Typed key of the image's view.
      height: H of the image.
      width: W of the image.
      names: Which of crop, scale and rotate to choose from; at least one.

    Returns:
      matrix (2, 2) float32 and shift (2,) float32.
    """
    farthest = jnp.array([int(_SHIFT_RATIO * side + 0.5) for side in (height, width)])
    crop_key = _key_for(image_key, _Purpose.CROP)
    pixels = jax.random.randint(crop_key, (2,), -farthest, farthest + 1)

    scale_key = _key_for(image_key, _Purpose.SCALE)
    sx, sy = _uniform(scale_key, (2,), 1 / _SCALE_RATIO, _SCALE_RATIO)

    rotate_key = _key_for(image_key, _Purpose.ROTATE)
    degrees = _uniform(rotate_key, (), -_ROTATE_DEGREES, _ROTATE_DEGREES)

    warps = {
        "crop": (jnp.eye(2), pixels.astype(jnp.float32)),
        "scale": (operations.scale_matrix(sx, sy), jnp.zeros(2)),
        "rotate": (operations.rotation_matrix(jnp.deg2rad(degrees)), jnp.zeros(2)),
    }
    matrices, shifts = zip(*(warps[name] for name in names), strict=True)
    choice_key = _key_for(image_key, _Purpose.GEOMETRIC)
    choice = jax.random.randint(choice_key, (), 0, len(names))
    return jnp.stack(matrices)[choice], jnp.stack(shifts)[choice]


def draw_cutmix_box(
    key: jax.Array, height: int, width: int, lam: jax.Array
) -> jax.Array:
    """Draws a box of about `1 - lam` of the image, cut off at its borders.

    As `rand_bbox` in `utils/transforms.py` of the official code, which is also that
    of SRe2L and RDED: the centre is any pixel and the sides are even.

    Args:
      key: Typed key.
      height: H of the image.
      width: W of the image.
      lam: Scalar in [0, 1], the share that stays the image's own.

    Returns:
      (4,) int32: top, left, bottom, right.
    """
    sides = jnp.array([height, width])
    center = jax.random.randint(key, (2,), 0, sides)
    half = (sides * jnp.sqrt(1 - lam)).astype(jnp.int32) // 2
    first = jnp.maximum(center - half, 0)
    last = jnp.minimum(center + half, sides)
    return jnp.concatenate([first, last])


def _random_cell(key: jax.Array, image: jax.Array, factor: int) -> jax.Array:
    """One cell of the grid, or with probability 1 / factor^2 the whole image."""
    cell_key, whole_key = jax.random.split(key)
    row, col = jax.random.randint(cell_key, (2,), 0, factor)
    whole = jax.random.bernoulli(whole_key, 1 / factor**2)
    return jnp.where(whole, image, operations.factor_crop(image, row, col, factor))


def _random_shuffle(key: jax.Array, image: jax.Array, strips: int) -> jax.Array:
    """The vertical strips in a random order, then the horizontal ones."""
    across, down = (jax.random.permutation(k, strips) for k in jax.random.split(key))
    image = operations.shuffle_strips(image, across, axis=1)
    return operations.shuffle_strips(image, down, axis=0)


def _random_color(key: jax.Array, image: jax.Array) -> jax.Array:
    u = _uniform(key, (3,))
    image = operations.brightness(image, u[0])
    image = operations.saturation(image, u[1])
    return operations.contrast(image, u[2])


def _random_cutout(key: jax.Array, image: jax.Array) -> jax.Array:
    # An even hole has one more possible place, as its centre lies between pixels.
    places = [side + 1 - operations.cutout_size(side) % 2 for side in image.shape[:2]]
    row, col = jax.random.randint(key, (2,), 0, jnp.array(places))
    return operations.cutout(image, row, col)


def augment_image(key: jax.Array, image: jax.Array, spec: AugmentSpec) -> jax.Array:
    """Draws one view of one image: all operations of the spec but the mix.

    Args:
      key: Typed key of this view of this image.
      image: (H, W, C) float, normalised.
      spec: The operations; static.

    Returns:
      (H, W, C) float32.

    Raises:
      TypeError: The image is not float.
      ValueError: It does not have three axes.
      InputError: A side has fewer pixels than there are cells or strips.
    """
    if image.ndim != 3:
        raise ValueError(
            f"An image has shape {image.shape}, expected (H, W, C); a whole set for "
            "`make_views` has shape (N, H, W, C)."
        )
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(
            f"An image has dtype {image.dtype}, expected float: normalise by the "
            "dataset's mean and standard deviation first."
        )
    height, width, _ = image.shape
    for name in ("factor", "shuffle"):
        if getattr(spec, name) > min(height, width):
            raise InputError(
                f"AugmentSpec.{name} is {getattr(spec, name)}, expected at most the "
                f"image's smaller side, {min(height, width)}."
            )
    image = image.astype(jnp.float32)
    if spec.factor > 1:
        image = _random_cell(_key_for(key, _Purpose.FACTOR), image, spec.factor)
    if spec.shuffle > 1:
        shuffle_key = _key_for(key, _Purpose.SHUFFLE)
        image = _random_shuffle(shuffle_key, image, spec.shuffle)
    if spec.resized_crop:
        crop_key = _key_for(key, _Purpose.RESIZED_CROP)
        box = draw_resized_crop(crop_key, height, width, spec.resized_crop)
        image = operations.resized_crop(image, *box)
    if spec.pad_crop:
        pad_key = _key_for(key, _Purpose.PAD_CROP)
        top, left = jax.random.randint(pad_key, (2,), 0, 2 * spec.pad_crop + 1)
        image = operations.pad_crop(image, top, left, spec.pad_crop)
    names = spec.diffaug_operations
    if spec.flip and "flip" not in names:
        image = _random_flip(key, image)
    if spec.diffaug_mode == "multiple":
        return _diffaug(key, image, names)
    single_key = _key_for(key, _Purpose.SINGLE)
    choice = jax.random.randint(single_key, (), 0, len(names))
    branches = [functools.partial(_diffaug, names=(name,)) for name in names]
    return jax.lax.switch(choice, branches, key, image)


def _random_flip(key: jax.Array, image: jax.Array) -> jax.Array:
    flipped = jax.random.bernoulli(_key_for(key, _Purpose.FLIP))
    return operations.flip(image, flipped)


def _diffaug(key: jax.Array, image: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """DiffAug's operations in its order; one of the geometric ones is drawn."""
    if "flip" in names:
        image = _random_flip(key, image)
    if "color" in names:
        image = _random_color(_key_for(key, _Purpose.COLOR), image)
    geometric = tuple(name for name in _GEOMETRIC if name in names)
    if geometric:
        height, width, _ = image.shape
        image = operations.warp(image, *draw_warp(key, height, width, geometric))
    if "cutout" in names:
        image = _random_cutout(_key_for(key, _Purpose.CUTOUT), image)
    return image


def _draw_mix(
    key: jax.Array, height: int, width: int, spec: AugmentSpec
) -> tuple[jax.Array, jax.Array]:
    """The mixing weight of a view, and the box of its partner in a cutmix."""
    weight_key, box_key = jax.random.split(key)
    lam = jax.random.beta(weight_key, spec.mix_alpha, spec.mix_alpha, (), jnp.float32)
    return lam, draw_cutmix_box(box_key, height, width, lam)


def _random_mix(
    key: jax.Array, image: jax.Array, partner: jax.Array, spec: AugmentSpec
) -> jax.Array:
    lam, box = _draw_mix(key, image.shape[0], image.shape[1], spec)
    if spec.mix == "mixup":
        return operations.mixup(image, partner, lam)
    return operations.cutmix(image, partner, box)


def mix_partners(
    key: jax.Array,
    num_images: int,
    view: ArrayLike,
    indices: jax.Array,
    spec: AugmentSpec,
    image_shape: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """The partners mixed into the views of `make_views`, and the images' own weights.

    Args:
      key: As in `make_views`.
      num_images: N, the images of the whole set.
      view: As in `make_views`.
      indices: As in `make_views`.
      spec: As in `make_views`.
      image_shape: (H, W, ...) of an image.

    Returns:
      partners (B,) int32, the images themselves where the spec has no mix; and weights
      (B,) float32 in [0, 1], the share of every view that is its own image's: of the
      values in a mixup, of the area in a cutmix.
    """
    _check_key(key)
    if spec.mix == "none":
        return indices.astype(jnp.int32), jnp.ones(indices.shape, jnp.float32)
    view_key = jax.random.fold_in(key, view)
    height, width, *_ = image_shape

    def draw(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        image_key = jax.random.fold_in(view_key, index)
        partner_key = _key_for(image_key, _Purpose.PARTNER)
        partner = jax.random.randint(partner_key, (), 0, num_images)
        mix_key = _key_for(image_key, _Purpose.MIX)
        lam, (top, left, bottom, right) = _draw_mix(mix_key, height, width, spec)
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        return partner, lam if spec.mix == "mixup" else kept

    return jax.vmap(draw)(indices)


def _check_key(key: jax.Array) -> None:
    found = jax.random.key_impl(key)
    if found != streams.IMPLEMENTATION:
        raise ValueError(
            f"a key of {found} draws views that depend on their batch: make it by "
            f"jax.random.key(seed, impl={streams.IMPLEMENTATION!r})"
        )


def augment_batch(
    key: jax.Array,
    images: jax.Array,
    view: ArrayLike,
    indices: jax.Array,
    spec: AugmentSpec,
    normalization: Normalization | None = None,
    *,
    partners: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """`make_views` where only some images of the set are at hand.

    Args:
      key: Typed key of the augmentation.
      images: (B, H, W, C), the images of `indices`, as in `make_views`.
      view: Scalar integer, at least 0.
      indices: (B,) integers, at least 0: indices of the images in their set.
      spec: The operations; static under `jax.jit`.
      normalization: As in `make_views`.
      partners: For a spec with a mix, the (B,) indices of `mix_partners` and their
        (B, H, W, C) images.

    Returns:
      (B, H, W, C) float32.

    Raises:
      TypeError, ValueError: As for `augment_image`; or images to be normalised are
        float, a mix has no partners, or the key's implementation draws for a whole
        batch from its first key.
    """
    _check_key(key)
    if normalization is not None and jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images are {images.dtype}, but what is normalised here are pixels in "
            "[0, 255]: give uint8, or normalised images and no normalization"
        )
    view_key = jax.random.fold_in(key, view)

    def augmented(index: jax.Array, image: jax.Array) -> jax.Array:
        if normalization is not None:
            image = normalization.apply(image.astype(jnp.float32) / 255)
        return augment_image(jax.random.fold_in(view_key, index), image, spec)

    def mixed(
        index: jax.Array, image: jax.Array, partner: jax.Array, partner_image: jax.Array
    ) -> jax.Array:
        mix_key = _key_for(jax.random.fold_in(view_key, index), _Purpose.MIX)
        view, other = augmented(index, image), augmented(partner, partner_image)
        return _random_mix(mix_key, view, other, spec)

    if spec.mix == "none":
        return jax.vmap(augmented)(indices, images)
    if partners is None:
        raise ValueError(f"views with mix {spec.mix!r} need the partners of the images")
    return jax.vmap(mixed)(indices, images, *partners)


def make_views(
    key: jax.Array,
    images: jax.Array,
    view: ArrayLike,
    indices: jax.Array,
    spec: AugmentSpec,
    normalization: Normalization | None = None,
) -> jax.Array:
    """View number `view` of some images of a distilled set.

    View v of image i is the same array, whichever batch it is asked for in. So
    teacher logits that were stored once belong to the views a student sees later.
    With a mix, the partner is drawn from the whole set and is itself augmented as in
    its own view v. Labels are not mixed, since the teacher labels the mixed picture;
    where there are hard labels only, `mix_partners` says how to mix the loss.

    Args:
      key: Typed key of the augmentation.
      images: (N, H, W, C), the whole set: float and normalised, or uint8 pixels.
      view: Scalar integer, at least 0.
      indices: (B,) integers in [0, N); one beyond is read as the last image.
      spec: The operations; static under `jax.jit`.
      normalization: Applied to images that are pixels; static under `jax.jit`.

    Returns:
      (B, H, W, C) float32.

    Raises:
      TypeError, ValueError: As for `augment_batch`.

    >>> images = jnp.arange(2 * 4 * 4, dtype=jnp.float32).reshape(2, 4, 4, 1)
    >>> spec = AugmentSpec(flip=True, pad_crop=1)
    >>> key = jax.random.key(0)
    >>> both = make_views(key, images, 7, jnp.array([0, 1]), spec)
    >>> bool(jnp.all(make_views(key, images, 7, jnp.array([1]), spec)[0] == both[1]))
    True
    """
    images = jnp.asarray(images)
    partners = None
    if spec.mix != "none":
        partner_indices, _ = mix_partners(
            key, len(images), view, indices, spec, images.shape[1:]
        )
        partners = partner_indices, _gather(images, partner_indices)
    return augment_batch(
        key,
        _gather(images, indices),
        view,
        indices,
        spec,
        normalization,
        partners=partners,
    )


def _gather(images: jax.Array, indices: jax.Array) -> jax.Array:
    return images.at[indices].get(mode="clip")
