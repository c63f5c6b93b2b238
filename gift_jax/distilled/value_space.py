"""The space that images' values are in, as told by their distribution.

Extremes do not tell it: images in [-1, 1], mean-subtracted and standardised ones all
lie where learnt pixels may lie. The shares and correlations below separate 26 published
sets of CIFAR: DC, DSA, DM, MTT, RDED, k-means and random images on one side, MTT's and
DATM's ZCA, RFAD and KIP on the other.
"""

import numpy as np

PIXELS, STANDARDISED, WHITENED = "pixels", "standardised", "whitened"
# Of learnt pixels at most 29% are below -0.1 (DM, CIFAR, IPC 1), of network inputs at
# least 35%.
_MOST_NEGATIVE = 0.32
# Correlation of neighbours in a row: whitened images have 0.30 (KIP) to 0.54 (MTT),
# standardised ones 0.67 (DC) to 0.95.
_LEAST_CORRELATION = 0.6
# 98% of the values of learnt pixels lie in it: DM's reach -3.7 and 3.8.
_LEARNT_RANGE = (-5.0, 6.0)
_SAMPLE = 256


def value_space(images: np.ndarray) -> str:
    """The space that the values of images appear to be in.

    Args:
      images: (N, H, W, C) float32, finite.

    Returns:
      "pixels" (nominally in [0, 1]), "standardised" or "whitened" for network inputs,
      else a description for a message, such as "[-1, 1]".
    """
    sample = images[:: -(-len(images) // _SAMPLE)]
    lowest, highest, mean = sample.min(), sample.max(), sample.mean(dtype=np.float64)
    low, high = np.percentile(sample, (1, 99))
    negative = np.mean(sample < -0.1)
    if lowest >= 0 and high > 2:
        return "[0, 255], to be divided by 255"
    below_a_level = (sample > 0) & (sample < 0.0039)  # one level of 8 bits is 1 / 255
    if lowest >= 0 and highest < 0.004 and below_a_level.any():
        return "[0, 1/255], divided by 255 twice"
    is_shifted = low < -0.3 and high < 1.1  # learnt pixels stick out on both sides
    is_centred = negative > 0.05 and abs(mean) < 0.05
    is_far = low < _LEARNT_RANGE[0] or high > _LEARNT_RANGE[1]
    if not (negative > _MOST_NEGATIVE or is_shifted or is_centred or is_far):
        return PIXELS
    if lowest >= -1.02 and highest <= 1.02:
        return "[-1, 1]" if low < -0.75 and high > 0.5 else "mean-subtracted"
    # No published set has grey images whitened, neither RFAD's, FRePo's nor KIP's.
    is_whitened = images.shape[-1] > 1 and _correlation(sample) < _LEAST_CORRELATION
    return WHITENED if is_whitened else STANDARDISED


def _correlation(images: np.ndarray) -> float:
    """Correlation of neighbours in a row; 1 where it is not defined."""
    left, right = images[:, :, :-1].ravel(), images[:, :, 1:].ravel()
    if left.size == 0 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])
