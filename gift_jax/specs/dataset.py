"""The real dataset of a config."""

import dataclasses
from collections.abc import Callable

from gift_jax.data import real
from gift_jax.data.image_split import ImageSplit
from gift_jax.data.preprocess import Normalization
from gift_jax.specs import base


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """The real images, see `data.real.load_dataset`.

    Attributes:
      name: A name of data/info.py, "tfds:NAME", "folder:PATH" or "npz:PATH".
      data_dir: Directory of the dataset; "" means $TFDS_DATA_DIR or its default.
      image_size: Side in pixels; None means that of the dataset.
      mean: Channel means; () means those known of the dataset.
      std: Channel standard deviations; () as for `mean`.
      train_split: Name of the train split; "" means that of the dataset.
      test_split: Name of the test split; "" means that of the dataset.
      workers: Processes that decode large splits, including a teacher's train split;
        None means `loader.default_workers`.
      validation_images: Number of images held out of the train split.
    """

    name: str
    data_dir: str
    image_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_split: str
    test_split: str
    workers: int | None
    validation_images: int

    def __post_init__(self) -> None:
        """Raises InputError for impossible fields."""
        base.check_least("dataset", self, image_size=1, workers=0)
        base.normalization("dataset", self.mean, self.std)

    def open(
        self, measure: Callable[[ImageSplit], Normalization] | None = None
    ) -> real.RealDataset:
        """Opens the dataset; see `data.real.load_dataset` for what is raised.

        Args:
          measure: See `data.real.load_dataset`.
        """
        return real.load_dataset(
            self.name,
            data_dir=self.data_dir or None,
            image_size=self.image_size,
            normalization=base.normalization("dataset", self.mean, self.std),
            train_split=self.train_split or None,
            test_split=self.test_split or None,
            validation_images=self.validation_images,
            measure=measure,
        )
