"""Images as pixels, and in 8 bits for the formats of image files."""

import io

import numpy as np
from PIL import Image

from gift_jax.distilled.dataset import DistilledDataset, require_pixels
from gift_jax.runtime.errors import InputError

# RDED and SRe2L save JPEG in Pillow's default quality.
_JPEG_QUALITY = 75
_KEEP_WHITENED = (
    "Keep gift_jax's own format, which holds them whitened (save_distilled)"
)


def readable_pixels(dataset: DistilledDataset) -> np.ndarray:
    """The pixels of a dataset, un-whitened where needed: (N, H, W, C) float32.

    Raises:
      InputError: pixels lie so far outside of [0, 1] that no reader could tell them
        from images in another space. They are not clipped: that is another dataset.
    """
    pixels = dataset.pixels()
    try:
        require_pixels(pixels)
    except InputError as error:
        raise InputError(
            f"un-whitened, {error}: no reader would take them for pixels. "
            f"{_KEEP_WHITENED}"
        ) from error
    return pixels


def encode_images(dataset: DistilledDataset, kind: str) -> list[bytes]:
    """Encodes every image of a dataset.

    Pixels are rounded to 8 bits; those outside [0, 1] are clipped.

    Args:
      dataset: What to encode.
      kind: "png", lossless after the rounding, or "jpg".

    Raises:
      InputError: the images are whitened. Their pixels reach far beyond [0, 1], and
        clipping them would make another dataset.
    """
    if dataset.is_whitened:
        low, high = dataset.pixels().min(), dataset.pixels().max()
        raise InputError(
            f"the images are ZCA-whitened; as pixels they range over [{low:.3g}, "
            f"{high:.3g}], which 8 bits cannot hold. {_KEEP_WHITENED}"
        )
    images = np.rint(np.clip(dataset.images, 0, 1) * 255).astype(np.uint8)
    return [_encode(image, kind) for image in images]


def _encode(image: np.ndarray, kind: str) -> bytes:
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    stream = io.BytesIO()
    if kind == "png":
        picture.save(stream, "PNG")
    else:
        picture.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()
