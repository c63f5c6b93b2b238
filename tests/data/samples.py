"""Small datasets that the tests of this folder read."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gift_jax.data import image_split, info, sources


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def split_of(images, labels, **changes):
    fields = {
        "name": "made",
        "num_classes": 3,
        "image_size": images.shape[1],
        "channels": images.shape[-1],
        "normalization": info.IMAGENET,
    }
    made = info.DatasetInfo(**{**fields, **changes})
    return image_split.ImageSplit(
        sources.RecordList(images, np.array(labels)), made, "train"
    )


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Image i has value 10 * i everywhere and stored class i % 3."""

    VERSION = tfds.core.Version("1.0.0")
    CLASSES = ("n00000002", "n00000003", "n00000001")
    code_path = None  # looked for by TFDS, which takes `tests` for a package

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(names=self.CLASSES),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(6), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(np.full((8, 8, 3), 10 * i)), "label": i % 3}


class TinyPlain(TinyShapes):
    """The same with names that are no WordNet ids."""

    CLASSES = ("dog", "zebra", "ant")
