"""Images as pixels, and in 8 bits for the formats of image files."""

import io

import numpy as np
from PIL import Image

from gift_jax.data import preprocess
from gift_jax.distilled import zca
from gift_jax.distilled.dataset import DistilledDataset, require_pixels
from gift_jax.runtime.errors import InputError

# RDED and SRe2L save JPEG in Pillow's default quality.
_JPEG_QUALITY = 75
_KEEP = "Keep gift_jax's own format, which holds them as they are (save_distilled)"


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
        un_whitened = "un-whitened, " if dataset.is_whitened else ""
        raise InputError(
            f"{un_whitened}{error}: no reader would take them for pixels. {_KEEP}"
        ) from error
    return pixels


def require_of_datm(dataset: DistilledDataset) -> None:
    """Raises InputError unless readers take whitened images for DATM's.

    They fit kornia's transform to the train images, whichever it was, and never take
    grey images for whitened (`value_space`).
    """
    whitening = dataset.preprocess
    assert isinstance(whitening, preprocess.Whitening)
    if not zca.is_kornia(whitening):
        raise InputError(
            "the images are whitened by another convention than DATM's, whose files "
            f"readers take these for. {_KEEP}"
        )
    if dataset.images.shape[-1] == 1:
        raise InputError(
            "the images are grey and whitened, and readers take grey images for "
            f"pixels or standardised ones. {_KEEP}"
        )


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
            f"{high:.3g}], which 8 bits cannot hold. {_KEEP}"
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
