"""Whether the softmax of logits can be taken for probabilities (Guo et al., 2017).

https://arxiv.org/abs/1706.04599. In float64, on the host. A loss that sees only the
direction of the logits leaves their length free, and with it the confidence: compare
such losses after temperature scaling.
"""

import numpy as np
from scipy import special

# Largest temperature that is tried; the smallest is its inverse.
_MOST_TEMPERATURE = 1e3


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax(logits) at the label, in nats.

    Args:
      logits: (N, C) float.
      labels: (N,) integer classes.
    """
    log_probabilities = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    return -float(np.mean(log_probabilities[np.arange(len(labels)), labels]))


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, *, bins: int = 15
) -> float:
    """Mean distance of confidence and accuracy, over bins of equal width.

        sum_m |B_m| / N * |accuracy(B_m) - confidence(B_m)|

    Bin m holds the images whose highest probability lies in ((m - 1) / bins, m / bins].

    Args:
      logits: (N, C) float.
      labels: (N,) integer classes.
      bins: Number of bins; 15 in the paper.

    Returns:
      A number in [0, 1].
    """
    probabilities = special.softmax(np.asarray(logits, np.float64), axis=-1)
    confidence = probabilities.max(axis=-1)
    excess = confidence - (probabilities.argmax(axis=-1) == labels)
    places = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    of_bins = np.bincount(places, weights=excess, minlength=bins)
    return float(np.abs(of_bins).sum() / len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T for which softmax(logits / T) has the least mean NLL.

    There is one, as the NLL is convex in 1 / T. Where all predictions are right, it is
    a small one at which the NLL is 0 in float64; where they are wrong more often than
    by chance, it is 1000.

    Args:
      logits: (N, C) float, of images that are not those to report on.
      labels: (N,) integer classes.
    """
    from scipy import optimize  # would take half a second at every start

    found = optimize.minimize_scalar(
        lambda log: negative_log_likelihood(logits * np.exp(-log), labels),
        bounds=np.log([1 / _MOST_TEMPERATURE, _MOST_TEMPERATURE]),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))
