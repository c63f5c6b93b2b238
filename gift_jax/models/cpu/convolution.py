"""Convolution as CPUs compute it fastest.

XLA's CPU backend (jaxlib 0.10.2) hands two-dimensional convolutions to YNNPACK, which
runs them near the speed of a matrix product. Most of the 3x3 ones in our networks take
half of that time with a quarter of the multiplications
(`gift_jax.models.cpu.winograd`).

For the others, the gradient with respect to the kernel is a convolution too, with the
feature map as the window and the batch as channels. That shape, unlike all others, is
slow, and for the three channels of an image, or with strides, very slow. Gathered into
one matrix product

    dK[i, j, c, o] = sum_bhw x[b, s h + i - p, s w + j - p, c] dy[b, h, w, o]

it takes about 0.7 of the time at 128 channels and less than half at three, where
memory is kept between steps (`gift_jax.runtime.allocator`). Maps of at most 2x2 pixels
are such a product in value, too. Depthwise convolutions are sums of products
(`gift_jax.models.cpu.depthwise`). Other platforms keep XLA's own convolution and
gradients, and so do dilated and all other grouped convolutions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gift_jax.models.cpu import depthwise, winograd
from gift_jax.models.cpu.windows import Pads, sides, windows

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def conv(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, for `nn.Conv(conv_general_dilated=...)`.

    Equal in value and in gradient up to rounding. On CPUs bfloat16 weight gradients
    are summed in float32. A convolution that takes the special gradient has
    reverse-mode derivatives only.

    Args:
      images: (B, H, W, C) float.
      kernel: (rows, columns, C / groups, features) float.
      window_strides: Strides of rows and columns.
      padding: "SAME", "VALID", or ((top, bottom), (left, right)).
      lhs_dilation: See `jax.lax.conv_general_dilated`.
      rhs_dilation: See `jax.lax.conv_general_dilated`.
      dimension_numbers: See `jax.lax.conv_general_dilated`.
      feature_group_count: Number of groups.
      precision: See `jax.lax.conv_general_dilated`.

    Returns:
      (B, H', W', features), of the dtype of the arguments.
    """
    dimensions = lax.conv_dimension_numbers(
        images.shape, kernel.shape, dimension_numbers
    )
    strides = tuple(window_strides)
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    stock = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimensions,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    if dimensions != _NHWC or any(dilation != 1 for dilation in dilations):
        return stock(images, kernel)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(
            images.shape[1:3], kernel.shape[:2], strides, padding
        )
    pads = tuple((low, high) for low, high in padding)
    if min(map(min, pads)) < 0:
        return stock(images, kernel)
    default = stock
    if feature_group_count == 1:
        default = functools.partial(
            _plain_conv, strides=strides, pads=pads, precision=precision
        )
    on_cpus = _for_cpus(images, kernel, strides, pads, feature_group_count)
    if on_cpus is None:
        return default(images, kernel)
    return lax.platform_dependent(images, kernel, cpu=on_cpus, default=default)


def _for_cpus(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    pads: Pads,
    groups: int,
) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """What computes the values on CPUs where XLA's convolution is not the fastest."""
    if images.shape[3] == kernel.shape[3] == groups > 1:
        return functools.partial(depthwise.conv, strides=strides, pads=pads)
    if groups > 1:
        return None
    if _suits_winograd(images, kernel, strides, pads):
        return winograd.conv
    if _is_tiny(images, kernel, strides, pads):
        return functools.partial(_as_product, strides=strides)
    return None


def _suits_winograd(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads
) -> bool:
    """Whether Winograd's algorithm is possible, and was faster than the direct one.

    With fewer channels the transforms of the tiles take longer than the products; with
    fewer tiles the transforms of the kernels do.
    """
    height, width = images.shape[1:3]
    tiles = images.shape[0] * height * width // winograd.TILE**2
    return (
        _is_padded_3x3(images, kernel, pads)
        and strides == (1, 1)
        and height % winograd.TILE == width % winograd.TILE == 0
        and min(kernel.shape[2:]) >= 32
        and tiles >= 32
    )


def _is_tiny(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads
) -> bool:
    """Whether a result of 1x1 or 2x2 pixels has many channels.

    XLA's convolution, or its gradient with respect to the images, takes up to 44 times
    as long there as the product of the gathered windows.
    """
    return (
        _is_padded_3x3(images, kernel, pads)
        and max(sides(images, kernel.shape[:2], strides, pads)) <= 2
        and min(kernel.shape[2:]) >= 64
    )


def _is_padded_3x3(images: jax.Array, kernel: jax.Array, pads: Pads) -> bool:
    return (
        images.dtype == kernel.dtype == jnp.float32
        and kernel.shape[:2] == (3, 3)
        and pads == ((1, 1), (1, 1))
    )


def _as_product(
    images: jax.Array, kernel: jax.Array, *, strides: tuple[int, ...]
) -> jax.Array:
    """A 3x3 convolution with a border of zeros, as one matrix product."""
    pixels = windows(images, (3, 3), strides, ((1, 1), (1, 1)))
    return jnp.concatenate(pixels, axis=-1) @ kernel.reshape(-1, kernel.shape[3])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _plain_conv(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    pads: Pads,
    precision: Any,
) -> jax.Array:
    return lax.conv_general_dilated(
        images, kernel, strides, pads, dimension_numbers=_NHWC, precision=precision
    )


def _forward(
    images: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, ...],
    pads: Pads,
    precision: Any,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _plain_conv(images, kernel, strides, pads, precision), (images, kernel)


def _backward(
    strides: tuple[int, ...],
    pads: Pads,
    precision: Any,
    saved: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    images, kernel = saved
    stock = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=pads,
        dimension_numbers=_NHWC,
        precision=precision,
    )

    def stock_gradient(images: jax.Array, cotangent: jax.Array) -> jax.Array:
        transposed = jax.linear_transpose(lambda k: stock(images, k), kernel)
        return transposed(cotangent)[0]

    def product(images: jax.Array, cotangent: jax.Array) -> jax.Array:
        pixels = windows(images, kernel.shape[:2], strides, pads)
        gradient = lax.dot(
            _transposed(pixels),
            cotangent.reshape(-1, kernel.shape[3]),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        return gradient.reshape(kernel.shape).astype(kernel.dtype)

    (image_gradient,) = jax.linear_transpose(lambda x: stock(x, kernel), images)(
        cotangent
    )
    kernel_gradient = lax.platform_dependent(
        images, cotangent, cpu=product, default=stock_gradient
    )
    return image_gradient, kernel_gradient


_plain_conv.defvjp(_forward, _backward)


def _transposed(windows: Sequence[jax.Array]) -> jax.Array:
    """Windows so that the product that follows sums over the last axis.

    YNNPACK takes a product whose left factor is summed over that.

    Returns:
      (rows * columns * C, B * H' * W'): one row per row, column and input channel
      of the kernel, one column per output pixel.
    """
    channels = windows[0].shape[3]
    stacked = jnp.stack(windows).reshape(len(windows), -1, channels)
    return stacked.swapaxes(1, 2).reshape(len(windows) * channels, -1)
