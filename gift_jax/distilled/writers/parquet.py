"""Parquet as the Hugging Face sets `he-yang/2025-rethinkdc-imagenet-*` have it."""

import json
import pathlib

from gift_jax.distilled.dataset import DistilledDataset
from gift_jax.distilled.writers import images
from gift_jax.runtime.errors import MissingPackageError, pip_install


def write(dataset: DistilledDataset, path: pathlib.Path) -> None:
    """Writes the columns `image` (png) and `class_id`. Soft labels are left out.

    The library `datasets` reads `image` as pictures.

    Args:
      dataset: What to write.
      path: The file.

    Raises:
      ImportError: pyarrow is not installed.
      InputError: the images are whitened.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet as pq
    except ImportError as error:
        raise MissingPackageError(
            f"parquet files are written with pyarrow: {pip_install('parquet')}"
        ) from error
    encoded = images.encode_images(dataset, "png")
    cells = [
        {"bytes": data, "path": f"{index:05d}.png"}
        for index, data in enumerate(encoded)
    ]
    features = {
        "image": {"_type": "Image"},
        "class_id": {"dtype": "int32", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("class_id", pa.int32()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    columns = {"image": cells, "class_id": dataset.labels}
    pq.write_table(pa.table(columns, schema=schema), path, write_page_checksum=True)
