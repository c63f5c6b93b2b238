"""A small network with the statistics of a trained one, and the same in NumPy."""

import jax
import numpy as np

from gift_jax import models
from gift_jax.data import info, preprocess, real, sources
from gift_jax.teachers import FlaxTeacher

NORMALIZATION = preprocess.Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
INFO = info.DatasetInfo("made", 3, 8, 3, NORMALIZATION)
# One of each size that the official codes have constants for.
_NAMES = ("cifar100", "tiny_imagenet", "imagenet2012")
OFFICIAL = [info.dataset_info(name) for name in _NAMES]


def teacher(name="conv2", seed=0, **options):
    """Weights at random, running statistics of nowhere in particular."""
    if name.startswith("conv"):
        options = {"width": 4, **options}
    model = models.create_model(name, num_classes=3, image_size=8, **options)
    variables = models.init_variables(model, jax.random.key(seed), image_size=8)
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32),
        variables.get("batch_stats", {}),
    )
    variables = {**jax.device_get(variables), "batch_stats": stats}
    if "classifier" in variables["params"]:  # classes that can be told apart
        last = variables["params"]["classifier"]
        last["kernel"] = 20 * last["kernel"]
    return FlaxTeacher(name, model, variables, NORMALIZATION)


def data(images_per_class=4):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3 * images_per_class, 8, 8, 3), np.uint8)
    labels = np.arange(len(images)) % 3
    split = real.ImageSplit(sources.RecordList(images, labels), INFO, "train")
    return real.RealDataset(INFO, split, split)


def convolved(x, kernel):
    """3x3, padded by one pixel."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )


def conv_net(variables, images):
    """Logits of a ConvNet in float64, and what its convolutions and norms are fed.

    Returns:
      logits, inputs of the convolutions, inputs of the norms.
    """
    params, stats = (
        jax.tree.map(np.float64, variables[name]) for name in ("params", "batch_stats")
    )
    x, of_convs, of_norms = np.float64(images), [], []
    for i in range(len(stats)):
        of_convs.append(x)
        conv, norm, kept = params[f"conv{i}"], params[f"norm{i}"], stats[f"norm{i}"]
        x = convolved(x, conv["kernel"]) + conv["bias"]
        of_norms.append(x)
        x = (x - kept["mean"]) / np.sqrt(kept["var"] + 1e-5)
        x = np.maximum(x * norm["scale"] + norm["bias"], 0)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))
    last = params["classifier"]
    logits = x.reshape(len(x), -1) @ last["kernel"] + last["bias"]
    return logits, of_convs, of_norms


def cross_entropy(logits, labels):
    logits = logits - logits.max(axis=1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log[np.arange(len(labels)), labels].mean()


def bn_distance(variables, of_norms):
    """The sum over layers, the first ten times."""
    total = 0.0
    for i, x in enumerate(of_norms):
        kept = jax.tree.map(np.float64, variables["batch_stats"][f"norm{i}"])
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        distance = np.linalg.norm(var - kept["var"])
        distance += np.linalg.norm(mean - kept["mean"])
        total += (10 if i == 0 else 1) * distance
    return total


def finite_differences(function, images, count=6, step=1e-5):
    """Derivatives by some pixels in float64: their indices and the numbers."""
    rng = np.random.default_rng(5)
    chosen = [tuple(rng.integers(0, images.shape)) for _ in range(count)]
    found = []
    for index in chosen:
        values = []
        for sign in (1, -1):
            moved = np.float64(images)
            moved[index] += sign * step
            values.append(function(moved))
        found.append((values[0] - values[1]) / (2 * step))
    return chosen, np.array(found)
