"""How many images real datasets have; those known by name are not opened for a plan."""

import dataclasses

from gift_jax.data import info as info_lib
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Normalization
from gift_jax.runtime.errors import InputError
from gift_jax.specs import DatasetSpec, base

# Train and test images, by the pages of the datasets; for ImageNet's subsets about
# 1,300 and exactly 50 per class.
_IMAGES = {
    "digits": (1_437, 360),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "mnist": (60_000, 10_000),
    "fashion_mnist": (60_000, 10_000),
    "tiny_imagenet": (100_000, 10_000),
    "imagenette": (9_469, 3_925),
    "imagewoof": (9_025, 3_929),
    "imagenet10": (13_000, 500),
    "imagenet100": (130_000, 5_000),
    "imagenet2012": (1_281_167, 50_000),
    "imagenet2012_64": (1_281_167, 50_000),
}


@dataclasses.dataclass(frozen=True)
class RealData:
    """Like `data.real.RealDataset`, but without images.

    Attributes:
      info: The dataset.
      images: How many there are in the splits "train", "validation" and "test".
    """

    info: info_lib.DatasetInfo
    images: dict[str, int]

    def of_classes(self, count: int) -> "RealData":
        """The dataset with `count` of its classes, as if all were of one size."""
        classes = self.info.num_classes
        return RealData(
            dataclasses.replace(self.info, num_classes=count),
            {split: round(n * count / classes) for split, n in self.images.items()},
        )


def real_data(spec: DatasetSpec) -> RealData:
    """A real dataset of known size, or one of the user's own, which is opened for it.

    Raises:
      FileNotFoundError, InputError: it is neither; see `data.real.load_dataset`.
    """
    name = info_lib.canonical_name(spec.name)
    if name not in _IMAGES:
        return _opened(spec)
    info = info_lib.DATASETS[name]
    normalization = base.normalization("dataset", spec.mean, spec.std)
    train, test = _IMAGES[name]
    held_out = spec.validation_images
    if held_out >= train:
        raise InputError(
            f"{held_out} images are held out of the {train} train images of {name}, "
            "expected fewer"
        )
    return RealData(
        dataclasses.replace(
            info,
            image_size=spec.image_size or info.image_size,
            normalization=normalization or info.normalization,
        ),
        {"train": train - held_out, "validation": held_out, "test": test},
    )


def _opened(spec: DatasetSpec) -> RealData:
    data = spec.open(measure=_any_normalization)
    return RealData(
        data.info,
        {
            "train": len(data.train),
            "validation": len(data.validation) if data.validation else 0,
            "test": len(data.test),
        },
    )


def _any_normalization(train: ImageSplit) -> Normalization:
    """No plan depends on channel statistics, and to measure them takes all images."""
    channels = train.image_shape[-1]
    return Normalization((0.0,) * channels, (1.0,) * channels)
