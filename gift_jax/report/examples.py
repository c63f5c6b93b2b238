"""Reads some distilled images and their soft labels from a work directory."""

import dataclasses
import json
import pathlib

import numpy as np
from scipy import special

from gift_jax.distilled.dataset import ARRAYS_FILE, DistilledDataset, load_distilled
from gift_jax.pipeline.products import DONE_FILE, RECIPE_FILE


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Some distilled images and their soft labels.

    Attributes:
      name: Of the distilled dataset in the work directory, such as "rded_ipc10".
      images: (n, H, W, C) float pixels in [0, 1].
      labels: (n,) integer hard labels.
      views: (n, H, W, C) float pixels of view 0, or None where the soft labels
        belong to the images themselves.
      probabilities: (n, num_classes) float, softmax of the stored logits, or None
        where none are stored.
      problem: Why stored soft labels could not be read, if so.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    views: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    problem: str | None = None


def read_examples(
    workdir: pathlib.Path, name: str, labels_name: str | None, count: int = 6
) -> Examples | None:
    """Reads one image of each of the first classes, with its soft label of view 0.

    Args:
      workdir: Work directory.
      name: Of the distilled dataset in it.
      labels_name: Of its soft labels, or None where none are stored.
      count: Of images.

    Returns:
      The examples, or None where that dataset does not lie there.
    """
    directory = workdir / "distilled" / name
    if not (directory / ARRAYS_FILE).is_file():
        return None
    dataset = load_distilled(directory)
    _, first = np.unique(dataset.labels, return_index=True)
    shown = first[:count]
    examples = Examples(
        name=name,
        images=np.clip(dataset.pixels()[shown], 0, 1),
        labels=dataset.labels[shown],
    )
    stored = workdir / "soft_labels" / labels_name if labels_name else None
    if stored and (stored / DONE_FILE).is_file():
        try:
            views, logits = _view_zero(stored, dataset, shown)
        except (ValueError, OSError) as error:  # damaged, or out of reach
            return dataclasses.replace(examples, problem=str(error))
    elif dataset.soft_labels is not None:
        views, logits = None, dataset.soft_labels[shown]
    else:
        return examples
    probabilities = special.softmax(logits.astype(np.float64), axis=-1)
    return dataclasses.replace(examples, views=views, probabilities=probabilities)


def _view_zero(
    stored: pathlib.Path, dataset: DistilledDataset, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and logits of view 0 of some images, made anew from the recipe."""
    import jax.numpy as jnp

    from gift_jax import augment
    from gift_jax.pipeline import labelling
    from gift_jax.soft_labels import views

    recipe = json.loads((stored / RECIPE_FILE).read_text())
    data, normalization = labelling.train_data(dataset, recipe["seed"])
    spec = augment.AugmentSpec(**recipe["augment"])
    view_images = views.AugmentedViews(spec, normalization)
    inputs = np.asarray(view_images.images(data, 0, jnp.asarray(shown)))
    pixels = np.clip(dataset.preprocess.invert(inputs), 0, 1)
    return pixels, labelling.open_labels(stored).read(0)[shown]
