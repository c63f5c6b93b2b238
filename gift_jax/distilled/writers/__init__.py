"""Distilled datasets in the formats of other people's evaluators.

To add a format, write a function of a dataset and a path and list it in `WRITERS`.
"""

import os
import pathlib
from collections.abc import Callable

from gift_jax import registry
from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.writers import datm, folders, gift, npz, parquet
from gift_jax.runtime import atomic

Writer = Callable[[DistilledDataset, pathlib.Path], None]

WRITERS: dict[str, Writer] = {
    "gift": gift.write,
    "folders": folders.write,
    "folders_jpg": folders.write_jpg,
    "parquet": parquet.write,
    "npz": npz.write,
    "datm": datm.write,
}


def write_distilled(
    dataset: DistilledDataset, path: str | os.PathLike, format: str
) -> None:
    """Writes a distilled dataset for others to read.

    Nothing is left behind when it fails, and nothing is overwritten. All formats but
    gift_jax's own (`save_distilled`) lose something; see their modules.

    Args:
      dataset: What to write.
      path: The file, or the directory for class folders and "datm".
      format: A name in `WRITERS`: "gift" (data.pt), "folders" (RDED's, as png),
        "folders_jpg" (the same as JPEG of quality 75), "parquet", "npz" or "datm"
        (its three .pt files).

    Raises:
      FileExistsError: there is something at the path.
      ImportError: "parquet" without pyarrow.
      InputError: an unknown format, whitened images in a format of 8 bits, un-whitened
        pixels too far outside of [0, 1], or "datm" without soft labels.

    >>> import tempfile
    >>> from gift_jax.data.real import load_dataset
    >>> from gift_jax.distill import make_distiller
    >>> from gift_jax.distilled import read_distilled
    >>> random = make_distiller("random", ipc=1)
    >>> made = random.make(load_dataset("digits"), teacher=None, seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_distilled(made, f"{folder}/digits.npz", "npz")
    ...     read_distilled(f"{folder}/digits.npz", dataset="digits").ipc
    1
    """
    if format not in WRITERS:
        raise registry.unknown_name("format", format, WRITERS)
    path = pathlib.Path(path).expanduser()
    if path.exists():
        raise FileExistsError(f"{path} exists already; delete it or choose another")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as unfinished:
        WRITERS[format](dataset, unfinished)
