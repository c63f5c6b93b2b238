"""Statistics of the train split, as products: of its channels, and inside a network."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from gift_jax.data import real
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Normalization
from gift_jax.data.real import RealDataset
from gift_jax.distill.recovery import real_statistics
from gift_jax.distill.recovery.real_statistics import RealLayer
from gift_jax.pipeline.products import Product, WorkdirError
from gift_jax.runtime import npz, preemption
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.progress import ProgressBar
from gift_jax.teachers import FlaxTeacher
from gift_jax.teachers.base import fingerprint

_FILE = "statistics.npz"


def channel_statistics(workdir: pathlib.Path, train: ImageSplit) -> Normalization:
    """Measures the channel statistics of a user's dataset, or finds them.

    Raises:
      PreemptedError: the job was asked to stop.
      WorkdirError: what is found is damaged.
    """
    recipe = {"images": train.fingerprint, "image_shape": list(train.image_shape)}
    product = Product(workdir / "channel_statistics" / fingerprint(recipe), recipe)

    def make(directory: pathlib.Path) -> dict[str, tuple[float, ...]]:
        del directory  # the record is all that is kept
        with ProgressBar("channel statistics", total=len(train), unit="img") as bar:
            return dataclasses.asdict(real.channel_statistics(train, _counting_on(bar)))

    product.make_if_absent(make)
    record = product.record()
    return Normalization(tuple(record["mean"]), tuple(record["std"]))


def make_statistics(
    product: Product, teacher: FlaxTeacher, data: RealDataset
) -> list[RealLayer]:
    """Measures the statistics of a network's layers, or finds them.

    Args:
      product: Product whose recipe has the fingerprints of teacher and data.
      teacher: The network.
      data: The real dataset.

    Raises:
      PreemptedError: the job was asked to stop.
      WorkdirError: what is found is damaged.
    """

    def make(directory: pathlib.Path) -> dict[str, str]:
        leaves = jax.tree.leaves(_measured(teacher, data))
        arrays = {str(number): leaf for number, leaf in enumerate(leaves)}
        np.savez(directory / _FILE, **arrays)
        return {"fingerprint": fingerprint(leaves)}

    product.make_if_absent(make)
    shapes, structure = jax.tree.flatten(real_statistics.shapes(teacher, data.info))
    leaves = _read(product.directory / _FILE, len(shapes))
    product.checked_record(fingerprint(leaves))
    return jax.tree.unflatten(structure, leaves)


def _read(path: pathlib.Path, count: int) -> list[np.ndarray]:
    try:
        arrays = npz.read_npz(path)
        return [arrays[str(number)] for number in range(count)]
    except (FileNotFoundError, InputError, KeyError) as error:
        raise WorkdirError(
            f"{path} is missing or damaged ({error}): delete {path.parent} to have the "
            "statistics measured again"
        ) from error


def _measured(teacher: FlaxTeacher, data: RealDataset) -> list[RealLayer]:
    name = f"statistics of {teacher.name}"
    with ProgressBar(name, total=len(data.train), unit="img") as bar:
        return real_statistics.measure(teacher, data, _counting_on(bar))


def _counting_on(bar: ProgressBar) -> Callable[[int], None]:
    """A callback that counts images on the bar, and stops when the job is asked to."""

    def on_images(images: int) -> None:
        bar.update(images)
        if preemption.requested():
            raise preemption.PreemptedError

    return on_images
