"""Class folders as RDED writes them: https://github.com/LINs-lab/RDED."""

import pathlib

from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.writers import images


def write(dataset: DistilledDataset, path: pathlib.Path, *, kind: str = "png") -> None:
    """Writes 00003/class00003_id00007.png for each image. Soft labels are left out.

    Args:
      dataset: What to write.
      path: The directory.
      kind: "png" or "jpg", see `images.encode_images`.

    Raises:
      InputError: the images are whitened.
    """
    encoded = images.encode_images(dataset, kind)
    written = [0] * dataset.metadata.num_classes
    for label, data in zip(dataset.labels.tolist(), encoded, strict=True):
        folder = path / f"{label:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"class{label:05d}_id{written[label]:05d}.{kind}"
        file.write_bytes(data)
        written[label] += 1


def write_jpg(dataset: DistilledDataset, path: pathlib.Path) -> None:
    """Like `write`, as JPEG of quality 75, as RDED's and SRe2L's files are."""
    write(dataset, path, kind="jpg")
