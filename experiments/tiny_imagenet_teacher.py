"""A published teacher of Tiny-ImageNet, as a function of the user's own.

A MobileNetV2 of width 0.5 with module names of its own, whose second stage keeps the
side and whose head has 640 channels: https://github.com/Rehan000/forge-tta (MIT),
`mobilenetv2_tinyimagenet.pt`. $TINY_IMAGENET_TEACHER says where it lies:

    TINY_IMAGENET_TEACHER=mobilenetv2_tinyimagenet.pt python -m gift_jax.main \\
        --config=configs/tiny_imagenet.py:data_dir=tiny-imagenet-200 --workdir=DIR \\
        --config.teacher.name=experiments.tiny_imagenet_teacher:build
"""

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.data.info import IMAGENET
from gift_jax.models.mobilenet import STAGES
from gift_jax.torch_io import load_torch

Weights = Mapping[str, jax.Array]


def build() -> Callable[[np.ndarray], jax.Array]:
    """Turns (B, 64, 64, 3) pixels in [0, 1] into (B, 200) logits; has a fingerprint."""
    path = pathlib.Path(os.environ["TINY_IMAGENET_TEACHER"])
    weights = {name: jnp.asarray(array) for name, array in load_torch(path).items()}
    teacher = functools.partial(jax.jit(logits), weights)
    teacher.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]  # type: ignore[attr-defined]
    return teacher


def logits(weights: Weights, pixels: jax.Array) -> jax.Array:
    """The network, by the names of its weights."""
    x = _conv(weights, "stem.0", IMAGENET.apply(pixels), stride=2)
    x = _relu6(_norm(weights, "stem.1", x))
    index = 0
    for stage, (expansion, _, blocks, stride) in enumerate(STAGES):
        for block in range(blocks):
            first = block == 0 and stage != 1
            name = f"blocks.{index}.conv"
            x = _block(weights, name, x, expansion != 1, stride if first else 1)
            index += 1
    x = _relu6(_norm(weights, "head.1", _conv(weights, "head.0", x)))
    return x.mean((1, 2)) @ weights["linear.weight"].T + weights["linear.bias"][None]


def _block(
    weights: Weights, name: str, x: jax.Array, is_wider: bool, stride: int
) -> jax.Array:
    y, at = x, 0
    if is_wider:
        y = _conv(weights, f"{name}.0", y)
        y, at = _relu6(_norm(weights, f"{name}.1", y)), 3
    y = _depthwise(weights, f"{name}.{at}", y, stride)
    y = _relu6(_norm(weights, f"{name}.{at + 1}", y))
    y = _conv(weights, f"{name}.{at + 3}", y)
    y = _norm(weights, f"{name}.{at + 4}", y)
    return x + y if y.shape == x.shape else y


def _conv(weights: Weights, name: str, x: jax.Array, stride: int = 1) -> jax.Array:
    kernel = weights[f"{name}.weight"].transpose(2, 3, 1, 0)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(kernel.shape[0] // 2,) * 2] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _depthwise(weights: Weights, name: str, x: jax.Array, stride: int) -> jax.Array:
    # A sum of shifted images: XLA's grouped convolutions are slow on CPUs.
    kernel = weights[f"{name}.weight"].T[..., None, None, :]
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, i : i + height : stride, j : j + width : stride] * kernel[j, i]
        for i in range(3)
        for j in range(3)
    ]
    return functools.reduce(jnp.add, shifted)


def _norm(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, scale, shift = (
        weights[f"{name}.{of}"].reshape(1, 1, 1, -1) for of in names
    )
    return (x - mean) * (scale * jax.lax.rsqrt(variance + 1e-5)) + shift


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 6)
