"""ZCA whitening as four projects fit it.

All of them multiply the flattened image by `(cov + ridge * I) ** -0.5`; they differ
in what is done to the pixels before and in the ridge:

    kornia   pixels                    minus mean image   cov over N - 1   ridge 0.1
    rfad     standardised pixels       no mean            over N           0.1 * mean
    frepo    standardised pixels       minus mean image   over N           0.1 * mean
    kip      standardised, each minus  no mean            over N           0.1 * mean
             its mean, of unit length

where `mean` is the mean eigenvalue, trace(cov) / d. `rfad` measures the channel
statistics, `frepo` has them written down. None of these choices is visible in the
whitened images, so data of one project must not meet the whitening of another.

The projects flatten to (C, H, W), `Whitening` flattens to (H, W, C). That only
renames dimensions: the fit does not depend on their order.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from gift_jax.data import preprocess
from gift_jax.runtime.errors import InputError

# ZCAWhitening(eps=0.1) in DATM, `utils/utils_baseline.py`, and in GIFT's evaluator.
_KORNIA_RIDGE = 0.1
# reg_coef in RFAD's `eval_distilled_set.py`, zca_reg in FRePo's `script/eval.py`.
_RELATIVE_RIDGE = 0.1

_CHUNK = 1000


def fit_kornia(train_images: np.ndarray) -> preprocess.Whitening:
    """The whitening of DATM and of GIFT's evaluator: kornia's `ZCAWhitening`.

    https://github.com/kornia/kornia, `kornia/enhance/zca.py`.

    Args:
      train_images: (N, H, W, C) uint8, the whole train split, N >= H * W * C.

    Raises:
      InputError: images that are not uint8, have another number of axes, or are fewer
        than their dimensions.
    """
    pixels = _unchanged(train_images.shape[-1])
    flat = _Flat(train_images, pixels)
    center = flat.mean()
    covariance = flat.second_moment(center) * (len(flat) / (len(flat) - 1))
    return _whitening(pixels, center, covariance, _KORNIA_RIDGE)


def is_kornia(whitening: preprocess.Whitening) -> bool:
    """Whether it is one that `fit_kornia` fits, of whatever images."""
    statistics = whitening.normalization
    return whitening.length is None and statistics == _unchanged(len(statistics.mean))


def _unchanged(channels: int) -> preprocess.Normalization:
    return preprocess.Normalization((0.0,) * channels, (1.0,) * channels)


def fit_rfad(train_images: np.ndarray) -> preprocess.Whitening:
    """The whitening of RFAD: https://github.com/yolky/RFAD, `data.py`.

    Args and Raises: see `fit_kornia`.
    """
    standardised = _channel_statistics(train_images)
    flat = _Flat(train_images, standardised)
    return _relatively_whitened(flat, np.zeros(flat.dimensions, np.float32))


def fit_frepo(
    train_images: np.ndarray, statistics: preprocess.Normalization
) -> preprocess.Whitening:
    """The whitening of FRePo and RCIG: `lib/dataset/ops.py` of yongchaoz/FRePo.

    Args:
      train_images: See `fit_kornia`.
      statistics: FRePo's channel statistics.

    Raises:
      InputError: see `fit_kornia`.
    """
    flat = _Flat(train_images, statistics)
    return _relatively_whitened(flat, flat.mean())


def fit_kip(train_images: np.ndarray) -> preprocess.Whitening:
    """The whitening of KIP: `kip/nn_training.ipynb` of google-research.

    Images are standardised, then each is centred and brought to unit length.

    Args and Raises: see `fit_kornia`.
    """
    standardised = _channel_statistics(train_images)
    flat = _Flat(train_images, standardised, unit_length=True)
    whitening = _relatively_whitened(flat, np.zeros(flat.dimensions, np.float32))
    return dataclasses.replace(whitening, length=flat.length())


def _channel_statistics(images: np.ndarray) -> preprocess.Normalization:
    """Channel means and standard deviations, over N - 1 as in PyTorch."""
    total = squares = np.zeros(images.shape[-1])
    for start in range(0, len(images), _CHUNK):
        pixels = images[start : start + _CHUNK].astype(np.int64)
        total = total + pixels.sum(axis=(0, 1, 2))
        squares = squares + (pixels**2).sum(axis=(0, 1, 2))
    count = images.size / images.shape[-1]
    mean = total / count
    std = np.sqrt((squares - count * mean**2) / (count - 1))
    return preprocess.Normalization(tuple(mean / 255), tuple(std / 255))


def check_shape(shape: tuple[int, ...]) -> None:
    """Raises InputError for another number of axes, or fewer images than dimensions."""
    if len(shape) != 4 or shape[0] < math.prod(shape[1:]):
        raise InputError(
            f"ZCA cannot be fitted on train images of shape {shape}: expected "
            "(N, H, W, C) with N >= H * W * C, the whole train split"
        )


class _Flat:
    """Standardised, flattened images, computed chunk by chunk as they are asked for."""

    def __init__(
        self,
        images: np.ndarray,
        normalization: preprocess.Normalization,
        *,
        unit_length: bool = False,
    ) -> None:
        if images.dtype != np.uint8:
            raise InputError(
                f"ZCA is fitted on uint8 train images, got dtype {images.dtype}"
            )
        check_shape(images.shape)
        self.dimensions = math.prod(images.shape[1:])
        self._images = images
        self.normalization = normalization
        self._unit_length = unit_length

    def __len__(self) -> int:
        return len(self._images)

    def _chunks(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _CHUNK):
            pixels = self._images[start : start + _CHUNK].astype(np.float32) / 255
            flat = self.normalization.apply(pixels).reshape(-1, self.dimensions)
            if self._unit_length:
                flat = flat - flat.mean(axis=1, keepdims=True)
                flat = flat / _lengths(flat)[:, None]
            yield flat

    def length(self) -> float:
        """Mean length of the images, each centred, before scaling to unit length."""
        plain = _Flat(self._images, self.normalization)
        lengths = [
            _lengths(chunk - chunk.mean(axis=1, keepdims=True))
            for chunk in plain._chunks()
        ]
        return float(np.concatenate(lengths).mean(dtype=np.float64))

    def mean(self) -> np.ndarray:
        """Mean image, (d,) float32."""
        total = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in self._chunks())
        return (total / len(self)).astype(np.float32)

    def second_moment(self, center: np.ndarray) -> np.ndarray:
        """Second moment of the distances from `center`, (d, d) float64."""
        total = np.zeros((self.dimensions, self.dimensions))
        for chunk in self._chunks():
            chunk -= center
            total += chunk.T @ chunk
        return total / len(self)


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.maximum(np.linalg.norm(rows, axis=1), 1e-6)


def _relatively_whitened(flat: _Flat, center: np.ndarray) -> preprocess.Whitening:
    second_moment = flat.second_moment(center)
    ridge = _RELATIVE_RIDGE * np.trace(second_moment) / flat.dimensions
    return _whitening(flat.normalization, center, second_moment, ridge)


def _whitening(
    normalization: preprocess.Normalization,
    center: np.ndarray,
    covariance: np.ndarray,
    ridge: float,
) -> preprocess.Whitening:
    eigenvalues, vectors = np.linalg.eigh(covariance)
    # Rounding may push the eigenvalues of constant pixels below zero.
    scales = np.sqrt(np.maximum(eigenvalues, 0) + ridge)
    return preprocess.Whitening(
        normalization=normalization,
        center=center,
        matrix=((vectors / scales) @ vectors.T).astype(np.float32),
        inverse=((vectors * scales) @ vectors.T).astype(np.float32),
    )
