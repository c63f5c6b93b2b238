"""Reads some distilled images and their soft labels from work directories."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable

import numpy as np
from scipy import special

from gift_jax.distilled import preview
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.files import ARRAYS_FILE, load_distilled
from gift_jax.pipeline.products import DONE_FILE, RECIPE_FILE
from gift_jax.pipeline.results import Row
from gift_jax.report.reading import inside
from gift_jax.runtime import errors

# What files that are damaged, or were not made here, can lead to.
_UNREADABLE = (*errors.EXPECTED, ValueError, LookupError, TypeError, RecursionError)
_LONGEST_NAME = 100
_COUNT = 6  # images with their soft labels
_ROWS, _COLUMNS = 10, 5  # classes and images of one, side by side with other datasets


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Some distilled images and their soft labels.

    Attributes:
      name: Name of the distilled dataset, such as "rded_ipc10"; no two have the same.
      images: (n, H, W, C) float pixels in [0, 1].
      labels: (n,) integer hard labels.
      views: (n, H, W, C) float pixels of view 0, or None where the soft labels
        belong to the images themselves.
      probabilities: (n, num_classes) float, softmax of the stored logits, or None
        where none are stored.
      grid: (height, width, C) uint8, the first ten classes by five images, or None.
      problem: Why stored soft labels could not be read, if so.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    views: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    grid: np.ndarray | None = None
    problem: str | None = None


def read_all_examples(rows: Iterable[Row]) -> tuple[list[Examples], list[str]]:
    """Examples of every distilled dataset of runs, with the first of its soft labels.

    Returns:
      The examples, and which distilled datasets cannot be read and why.
    """
    first: dict[tuple[pathlib.Path, str], Row] = {}
    for row in rows:
        if row.get("distilled_dir"):
            first.setdefault((row["workdir"], row["distilled_dir"]), row)
    names = [name for _, name in first]
    found: dict[str, Examples] = {}
    unreadable = []
    for (workdir, name), row in first.items():
        try:
            shown = read_examples(workdir, name, row.get("soft_labels_dir"))
        except _UNREADABLE as error:
            unreadable.append(f"distilled/{name}: {error}")
            continue
        if names.count(name) > 1:
            name = f"{row['dataset'].replace('/', '_')}_{name}"
        name = name[:_LONGEST_NAME]
        while name in found:
            name += "_"
        if shown:
            found[name] = dataclasses.replace(shown, name=name)
    return list(found.values()), unreadable


def read_examples(
    workdir: pathlib.Path, name: str, labels_name: str | None
) -> Examples | None:
    """Reads one image of each of the first classes, with its soft label of view 0.

    Args:
      workdir: Work directory.
      name: Name of the distilled dataset in it.
      labels_name: Name of its soft labels, or None where none are stored.

    Returns:
      The examples, or None where that dataset does not lie there.
    """
    directory = inside(workdir, "distilled", name)
    if not (directory / ARRAYS_FILE).is_file():
        return None
    dataset = load_distilled(directory)
    shown = np.unique(dataset.labels, return_index=True)[1][:_COUNT]
    all_pixels = dataset.pixels()
    grid = preview.picture(all_pixels, dataset.labels, rows=_ROWS, columns=_COLUMNS)
    pixels = np.clip(all_pixels[shown], 0, 1)
    found = Examples(name, pixels, dataset.labels[shown], grid=grid)
    views, logits = None, None
    try:
        all_labels = workdir / "soft_labels"
        if labels_name and (all_labels / labels_name / DONE_FILE).is_file():
            stored = inside(workdir, "soft_labels", labels_name)
            views, logits = _view_zero(stored, dataset, shown)
        elif dataset.soft_labels is not None:
            logits = dataset.soft_labels[shown]
    except _UNREADABLE as error:
        return dataclasses.replace(found, problem=str(error))
    if logits is None:
        return found
    probabilities = special.softmax(logits.astype(np.float64), axis=-1)
    return dataclasses.replace(found, views=views, probabilities=probabilities)


def _view_zero(
    stored: pathlib.Path, dataset: DistilledDataset, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels and logits of view 0 of some images, made anew from the recipe."""
    import jax.numpy as jnp

    from gift_jax.augment import AugmentSpec
    from gift_jax.pipeline.labelling import open_labels
    from gift_jax.soft_labels.views import AugmentedViews, train_data

    recipe = json.loads((stored / RECIPE_FILE).read_text())
    logits = open_labels(stored).read(0)[shown]
    data, normalization = train_data(dataset, recipe["seed"])
    view_images = AugmentedViews(AugmentSpec(**recipe["augment"]), normalization)
    inputs = np.asarray(view_images.images(data, 0, jnp.asarray(shown)))
    pixels = np.clip(dataset.preprocess.invert(inputs), 0, 1)
    return pixels, logits
