"""Image operations with explicit parameters, on one image (H, W, C).

The family is that of the GIFT evaluator, `utils/transforms.py` in
https://github.com/LINs-lab/GIFT: the DiffAug of IDC (`augment.py` in
https://github.com/snu-mllab/Efficient-Dataset-Condensation), the
RandomFactorResizedCrop for mosaics such as RDED's, and the usual crops and mixes.

Images are float and normalised. Nothing is drawn here and no shape depends on a
value, so all parameters but `factor` and `padding` may be traced; vmap for a batch.
"""

import jax
import jax.numpy as jnp

Scalar = jax.Array | float

_CUTOUT_RATIO = 0.5  # of the image's side; `ratio_cutout` of DiffAug


def flip(image: jax.Array, flipped: Scalar) -> jax.Array:
    """Mirrors left and right where the bool scalar `flipped` is true."""
    return jnp.where(flipped, image[:, ::-1], image)


def brightness(image: jax.Array, u: Scalar) -> jax.Array:
    """Adds `u - 0.5`, with u in [0, 1], to every value."""
    return image + (u - 0.5)


def saturation(image: jax.Array, u: Scalar) -> jax.Array:
    """Scales the distance from each pixel's channel mean by `2 u`, u in [0, 1]."""
    mean = jnp.mean(image, axis=-1, keepdims=True)
    return (image - mean) * (2 * u) + mean


def contrast(image: jax.Array, u: Scalar) -> jax.Array:
    """Scales the distance from the image's mean by `u + 0.5`, u in [0, 1]."""
    mean = jnp.mean(image)
    return (image - mean) * (u + 0.5) + mean


def scale_matrix(sx: Scalar, sy: Scalar) -> jax.Array:
    """The (2, 2) matrix by which `warp` shrinks by `sx` across and `sy` down.

    Below 1 the picture is enlarged.
    """
    return jnp.array([[sy, 0.0], [0.0, sx]])


def rotation_matrix(theta: Scalar) -> jax.Array:
    """The (2, 2) matrix by which `warp` rotates anticlockwise by `theta` radians."""
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    return jnp.array([[cos, sin], [-sin, cos]])


def warp(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Samples the image on an affine grid: bilinear, zero outside.

    Output pixel p takes the value at `matrix @ p + shift`, in (row, column) pixels
    from the image's centre, so that a shift moves the picture up and left. On square
    images that is PyTorch's `affine_grid` and `grid_sample` with their defaults
    (align_corners False), and, without a shift, with align_corners True in both, as in
    DATM and DD-Ranking. Whole-pixel shifts of the identity are exact.

    It is one path for scaling, rotating and shifting, so that a batch in which
    each image draws one of them costs one gather of four taps, not three branches.

    Args:
      image: (H, W, C) float.
      matrix: (2, 2) float.
      shift: (2,) number of pixels.

    Returns:
      (H, W, C), of the image's dtype if the other arguments do not widen it.
    """
    height, width, channels = image.shape
    row_center, col_center = (height - 1) / 2, (width - 1) / 2
    rows = jnp.arange(height)[:, None] - row_center
    cols = jnp.arange(width)[None, :] - col_center
    # Sums, not matmuls: accelerators round the factors of a matmul to bfloat16.
    source_rows = matrix[0, 0] * rows + matrix[0, 1] * cols + (row_center + shift[0])
    source_cols = matrix[1, 0] * rows + matrix[1, 1] * cols + (col_center + shift[1])

    top, left = jnp.floor(source_rows), jnp.floor(source_cols)
    down, right = source_rows - top, source_cols - left
    # Two pixels of zeros on each side: every tap that is outside lands on them.
    pixels = jnp.pad(image, ((2, 2), (2, 2), (0, 0))).reshape(-1, channels)
    stride = width + 4
    row = jnp.clip(top, -2, height).astype(jnp.int32) + 2
    col = jnp.clip(left, -2, width).astype(jnp.int32) + 2
    corner = row * stride + col

    def tap(offset: int, weight: jax.Array) -> jax.Array:
        values = pixels.at[corner + offset].get(mode="promise_in_bounds")
        return weight[..., None] * values

    return (
        tap(0, (1 - down) * (1 - right))
        + tap(1, (1 - down) * right)
        + tap(stride, down * (1 - right))
        + tap(stride + 1, down * right)
    )


def cutout_size(side: int) -> int:
    """Side of the cutout hole in an image of that side: half, rounded up at .5."""
    return int(side * _CUTOUT_RATIO + 0.5)


def _hole(center: Scalar, side: int) -> jax.Array:
    """(side,) bool: what a hole covers along one axis."""
    first = center - cutout_size(side) // 2
    index = jnp.arange(side)
    return (index >= first) & (index < first + cutout_size(side))


def cutout(image: jax.Array, center_row: Scalar, center_col: Scalar) -> jax.Array:
    """Zeroes a rectangle of half the image's sides, cut off at the borders."""
    height, width, _ = image.shape
    hole = _hole(center_row, height)[:, None] & _hole(center_col, width)[None, :]
    return jnp.where(hole[..., None], 0, image)


def pad_crop(image: jax.Array, top: Scalar, left: Scalar, padding: int) -> jax.Array:
    """Pads with zeros on every side and crops back to the image's size.

    Zeros of a normalised image are its dataset's mean; torchvision's RandomCrop, before
    normalisation, pads with black.

    Args:
      image: (H, W, C) float.
      top: First row of the crop, in [0, 2 * padding].
      left: First column of the crop, in [0, 2 * padding].
      padding: Pixels, static.

    Returns:
      (H, W, C); `top == left == padding` gives the image itself.
    """
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def _enlarging_matrix(start: Scalar, length: Scalar, side: int) -> jax.Array:
    """(side, side) bilinear weights that spread `length` pixels over `side`."""
    centers = (jnp.arange(side) + 0.5) * (length / side) - 0.5
    # Clamped to the crop: nothing beyond its edge is seen, as if it were cut first.
    centers = start + jnp.clip(centers, 0, length - 1)
    return jnp.maximum(0, 1 - jnp.abs(centers[:, None] - jnp.arange(side)[None, :]))


def resized_crop(
    image: jax.Array,
    top: Scalar,
    left: Scalar,
    height: Scalar,
    width: Scalar,
) -> jax.Array:
    """Crops a box and enlarges it to the image's size, bilinear.

    Equal to torchvision's `resized_crop` with or without antialias: a crop is never
    larger than the image, and antialias only acts where a picture shrinks.

    Args:
      image: (H, W, C) float.
      top: First row of the box, whole pixels.
      left: First column of the box, whole pixels.
      height: Rows of the box, in [1, H - top].
      width: Columns of the box, in [1, W - left].

    Returns:
      (H, W, C); the full box gives the image itself.
    """
    return jnp.einsum(
        "oh,hwc,pw->opc",
        _enlarging_matrix(top, height, image.shape[0]),
        image,
        _enlarging_matrix(left, width, image.shape[1]),
        precision=jax.lax.Precision.HIGHEST,
    )


def factor_crop(image: jax.Array, row: Scalar, col: Scalar, factor: int) -> jax.Array:
    """Enlarges cell (row, col) of a `factor` x `factor` grid to the image's size.

    Where `factor` does not divide a side, cells have `side // factor` pixels and the
    remainder belongs to none, as in the official RandomFactorResizedCrop.

    Args:
      image: (H, W, C) float.
      row: Row of the cell, in [0, factor).
      col: Column of the cell, in [0, factor).
      factor: Cells along each side, static, at most min(H, W).

    Returns:
      (H, W, C).
    """
    height, width = image.shape[0] // factor, image.shape[1] // factor
    return resized_crop(image, row * height, col * width, height, width)


def shuffle_strips(image: jax.Array, order: jax.Array, axis: int) -> jax.Array:
    """Cuts an axis into equal strips and puts them together in another order.

    RDED's ShufflePatches (`validation/utils.py`). Where their number does not divide
    the side, the last strip is the larger one; RDED's loop overwrites its variable, and
    gives images of another size there.

    Args:
      image: (H, W, C) float.
      order: (n,) integers, a permutation: the strip at each place of the result.
      axis: 0 or 1, static.

    Returns:
      (H, W, C).
    """
    side, count = image.shape[axis], len(order)
    lengths = jnp.full(count, side // count).at[-1].add(side % count)
    ends = jnp.cumsum(lengths[order])
    pixels = jnp.arange(side)
    place = jnp.searchsorted(ends, pixels, side="right")
    within = pixels - (ends - lengths[order])[place]
    source = order[place] * (side // count) + within
    return jnp.take(image, source, axis=axis)


def mixup(image: jax.Array, partner: jax.Array, lam: Scalar) -> jax.Array:
    """`lam * image + (1 - lam) * partner` (mixup, arXiv 1710.09412)."""
    return lam * image + (1 - lam) * partner


def cutmix(image: jax.Array, partner: jax.Array, box: jax.Array) -> jax.Array:
    """Puts a box of the partner onto the image (CutMix, arXiv 1905.04899).

    Args:
      image: (H, W, C) float.
      partner: (H, W, C) float.
      box: (4,) int: top, left, bottom, right in pixels, the last two exclusive.

    Returns:
      (H, W, C).
    """
    top, left, bottom, right = box
    rows, cols = jnp.arange(image.shape[0]), jnp.arange(image.shape[1])
    inside_rows = (rows >= top) & (rows < bottom)
    inside_cols = (cols >= left) & (cols < right)
    inside = inside_rows[:, None] & inside_cols[None, :]
    return jnp.where(inside[..., None], partner, image)
