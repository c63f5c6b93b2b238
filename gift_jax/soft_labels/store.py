"""The soft-label store: teacher logits of every view, as one array on disk.

The array has a row for every (view, image), as zarr3 with a checksum on every
chunk, written through TensorStore to a local directory or a cloud. A row holds
logits as a codec of `codecs` stores them: by default (views, N, C) float16. A
chunk appears under its name only when it is complete, so a store that was
interrupted is continued at its missing chunks.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorstore

from gift_jax.runtime.errors import InputError, UserError
from gift_jax.soft_labels import storage
from gift_jax.soft_labels.codecs import (
    FLOAT16,
    LabelCodec,
    encode,
    stored_bytes,
)
from gift_jax.soft_labels.views import View

# Large enough that a file system is not littered, small enough that a chunk is a
# small part of a machine's memory. Counted in float16 whatever the codec, as whole
# chunks of logits are held before they are stored.
_CHUNK_BYTES = 16 * 2**20


class DamagedStoreError(UserError, ValueError):
    """A chunk of the store is missing or fails its checksum."""


@dataclasses.dataclass(frozen=True)
class SoftLabelStore:
    """Teacher logits on disk, or in a cloud.

    Attributes:
      location: Location of the zarr array: a local path or a URL.
      array: (views, N, columns) of the codec's dtype; chunks hold rows of a single
        view.
      chunk_rows: Images in a chunk.
      num_classes: C.
      codec: How rows are stored.
    """

    location: str
    array: tensorstore.TensorStore
    chunk_rows: int
    num_classes: int
    codec: LabelCodec

    @property
    def views(self) -> int:
        """Number of views of every image that are labelled."""
        return self.array.shape[0]

    @property
    def num_images(self) -> int:
        """N."""
        return self.array.shape[1]

    @property
    def total_bytes(self) -> int:
        """Bytes of all soft labels on disk, without checksums."""
        return stored_bytes(
            self.codec,
            views=self.views,
            num_images=self.num_images,
            num_classes=self.num_classes,
        )

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk on disk, without its checksum."""
        return self.chunk_rows * self.codec.row_bytes(self.num_classes)

    def chunk_number(self, view: int, start: int) -> int:
        """The number of a chunk among all chunks, written or not."""
        chunks_of_view = -(-self.num_images // self.chunk_rows)
        return view * chunks_of_view + start // self.chunk_rows

    def missing_chunks(self) -> list[tuple[int, int, int]]:
        """The chunks not yet written, as (view, first row, row after the last).

        Raises:
          StorageError: the store cannot be reached.
        """
        files = self.array.kvstore
        assert files is not None  # a zarr array has one
        try:
            written = {key.decode() for key in files.list().result()}
        except ValueError as error:
            raise storage.StorageError(
                f"{self.location} cannot be listed: {storage.reason(error)}"
            ) from error
        return [
            (view, start, min(start + self.chunk_rows, self.num_images))
            for view in range(self.views)
            for start in range(0, self.num_images, self.chunk_rows)
            if f"c/{view}/{start // self.chunk_rows}/0" not in written
        ]

    def write(self, view: int, start: int, logits: np.ndarray) -> None:
        """Writes one chunk, see `start_writing`, and waits until it is stored."""
        self.start_writing(view, start, logits)()

    def start_writing(
        self, view: int, start: int, logits: np.ndarray
    ) -> Callable[[], None]:
        """Starts to write one chunk.

        Args:
          view: View number.
          start: First row, a multiple of `chunk_rows`.
          logits: (rows, C) float.

        Returns:
          A function that waits until the chunk is stored. It raises StorageError if the
          chunk cannot be written; no part of it is stored then.

        Raises:
          InputError: a logit is NaN, infinite or too large for float16.
          ValueError: the logits are not those of one whole chunk.
        """
        expected = (min(self.chunk_rows, self.num_images - start), self.num_classes)
        if start % self.chunk_rows or logits.shape != expected:
            raise ValueError(
                f"logits of shape {logits.shape} at row {start} are no whole chunk of "
                f"{self.location}: expected shape {expected} at a multiple of "
                f"{self.chunk_rows}"
            )
        stored = encode(self.codec, logits, view=view, start=start)
        writing = self.array[view, start : start + len(stored)].write(stored)

        def finish() -> None:
            try:
                writing.result()
            except ValueError as error:
                raise storage.StorageError(
                    f"soft labels cannot be written to {self.location}: "
                    f"{storage.reason(error)}. What is written stays good: run the "
                    "same command again to go on"
                ) from error

        return finish

    def start_reading(self, view: int) -> Callable[[], View]:
        """Starts to read a view; the returned function raises what `read` does."""
        reading = self.array[view].read()
        return lambda: View(np.int32(view), self._decoded(view, reading))

    def read(self, view: int) -> np.ndarray:
        """The (N, C) float16 logits of a view, with their checksums verified.

        Raises:
          DamagedStoreError: a chunk is missing or damaged.
          StorageError: the store cannot be read.
        """
        return self._decoded(view, self.array[view].read())

    def _decoded(self, view: int, reading: tensorstore.Future) -> np.ndarray:
        name = f"soft labels of view {view} in {self.location}"
        try:
            stored = np.asarray(reading.result())
        except ValueError as error:
            reason = storage.reason(error)
            if not storage.is_damage(error):
                raise storage.StorageError(
                    f"{name} cannot be read: {reason}"
                ) from error
            raise DamagedStoreError(
                f"{name} cannot be read ({reason}); delete the chunk to have it made "
                "again"
            ) from error
        logits = self.codec.decode(stored, self.num_classes)
        if np.isnan(logits).any():
            raise DamagedStoreError(
                f"{name} are incomplete; run the same command again to finish them"
            )
        return logits


def rows_of_chunks(num_images: int, num_classes: int) -> int:
    """Images in a chunk of a view of N images and C classes."""
    most_rows = max(1, _CHUNK_BYTES // FLOAT16.row_bytes(num_classes))
    # Chunks are stored at full size, so equal ones waste least.
    return -(-num_images // -(-num_images // most_rows))


def open_store(
    location: str | os.PathLike,
    *,
    views: int,
    num_images: int,
    num_classes: int,
    codec: LabelCodec = FLOAT16,
    create: bool = True,
) -> SoftLabelStore:
    """Opens a store.

    Args:
      location: Location of the zarr array: a local path, "gs://BUCKET/PATH" or
        "s3://BUCKET/PATH".
      views: Views of every image.
      num_images: N.
      num_classes: C.
      codec: How rows are stored.
      create: Whether to create the store where there is none.

    Raises:
      StorageError: as for `storage.open_array`.
      InputError: a store of another shape is there, or the codec does not support so
        many classes.
    """
    row_bytes = codec.row_bytes(num_classes)
    columns = row_bytes // codec.dtype.itemsize
    rows = rows_of_chunks(num_images, num_classes)
    codecs: list[dict[str, Any]] = [{"name": "bytes"}, {"name": "crc32c"}]
    if codec.dtype.itemsize > 1:
        codecs[0]["configuration"] = {"endian": "little"}
    spec = {
        "driver": "zarr3",
        "metadata": {
            "shape": (views, num_images, columns),
            "data_type": codec.dtype.name,
            # Chunks that are missing read as NaN, which no written chunk holds.
            "fill_value": "NaN" if codec.dtype.kind == "f" else 255,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": (1, rows, columns)},
            },
            "codecs": codecs,
        },
    }
    try:
        array = storage.open_array(spec, location, create=create)
    except ValueError as error:
        raise InputError(
            f"{location} holds no soft labels of shape "
            f"{(views, num_images, num_classes)} (views, images, classes) in "
            f"{codec.name}: {error}"
        ) from error
    return SoftLabelStore(str(location), array, rows, num_classes, codec)
