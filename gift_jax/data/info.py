"""The real datasets known by name: classes, sizes, channel statistics, transforms."""

import dataclasses

from gift_jax import registry
from gift_jax.data import preprocess

# As in the official code (GIFT, data/utils): CIFAR's own statistics for both
# CIFARs, ImageNet's for every name that contains "imagenet".
CIFAR = preprocess.Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = preprocess.Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FASHION_MNIST = preprocess.Normalization((0.2861,), (0.3530,))
# Measured over the 1,437 train images.
DIGITS = preprocess.Normalization((0.3055,), (0.3759,))
MNIST = preprocess.Normalization((0.1307,), (0.3081,))


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A real image classification dataset.

    Attributes:
      name: The name in configs.
      num_classes: Number of classes, C.
      image_size: Side in pixels that images are brought to.
      channels: 1 or 3.
      normalization: Channel statistics.
      tfds_name: Name in TFDS; empty for `digits` and image folders.
      train_split: Name of the split that teachers and distillation use.
      test_split: Name of the split that accuracies are measured on.
      resize: Whether images come in many sizes: the shorter side is then
        resized to 8/7 of `image_size` and the centre cropped (256/224, 146/128
        and 73/64 in the official code).
      validation_images: How many images are held out of the train split.
    """

    name: str
    num_classes: int
    image_size: int
    channels: int
    normalization: preprocess.Normalization
    tfds_name: str = ""
    train_split: str = "train"
    test_split: str = "test"
    resize: bool = False
    validation_images: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images as they are used."""
        return (self.image_size, self.image_size, self.channels)


DATASETS = {
    info.name: info
    for info in (
        DatasetInfo("digits", 10, 8, 1, DIGITS),
        DatasetInfo("cifar10", 10, 32, 3, CIFAR, "cifar10"),
        DatasetInfo("cifar100", 100, 32, 3, CIFAR, "cifar100"),
        DatasetInfo("mnist", 10, 28, 1, MNIST, "mnist"),
        DatasetInfo("fashion_mnist", 10, 28, 1, FASHION_MNIST, "fashion_mnist"),
        DatasetInfo("tiny_imagenet", 200, 64, 3, IMAGENET, test_split="val"),
        DatasetInfo(
            "imagenette",
            10,
            128,
            3,
            IMAGENET,
            "imagenette/full-size-v2",
            test_split="validation",
            resize=True,
        ),
        # Class folders in the order in which the official code prepares them.
        DatasetInfo("imagewoof", 10, 128, 3, IMAGENET, test_split="val", resize=True),
        DatasetInfo("imagenet10", 10, 128, 3, IMAGENET, test_split="val", resize=True),
        DatasetInfo(
            "imagenet100", 100, 128, 3, IMAGENET, test_split="val", resize=True
        ),
        DatasetInfo(
            "imagenet2012",
            1000,
            224,
            3,
            IMAGENET,
            "imagenet2012",
            test_split="validation",
            resize=True,
        ),
        DatasetInfo(
            "imagenet2012_64",
            1000,
            64,
            3,
            IMAGENET,
            "imagenet_resized/64x64",
            test_split="validation",
        ),
    )
}

_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach
couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket
rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
turtle wardrobe whale willow_tree wolf woman worm
"""
# Names of the classes in order, as TFDS has them, where published images may stand in
# folders by these names.
CLASS_NAMES = {
    "cifar10": tuple(_CIFAR10_CLASSES.split()),
    "cifar100": tuple(_CIFAR100_CLASSES.split()),
}

# Names of the datasets in other projects: GIFT, RDED and CIM (`imagenet-nette`), SRe2L
# and CDA (`in1k`, `tiny`), DATM (`Tiny`), RFAD (`fashion`). Case does not matter.
ALIASES = {
    "cifar-10": "cifar10",
    "cifar-100": "cifar100",
    "fashion": "fashion_mnist",
    "fashion-mnist": "fashion_mnist",
    "fashionmnist": "fashion_mnist",
    "tiny": "tiny_imagenet",
    "tiny-imagenet": "tiny_imagenet",
    "tinyimagenet": "tiny_imagenet",
    "imagenet-nette": "imagenette",
    "imagenet-woof": "imagewoof",
    "imagenet-10": "imagenet10",
    "imagenet-100": "imagenet100",
    "imagenet-1k": "imagenet2012",
    "imagenet1k": "imagenet2012",
    "imagenet": "imagenet2012",
    "in1k": "imagenet2012",
}


def canonical_name(name: str) -> str:
    """Name of a dataset in this project; case does not matter."""
    return ALIASES.get(name.lower(), name.lower())


def dataset_info(name: str) -> DatasetInfo:
    """Looks up a dataset by its name, or by what other projects call it.

    Raises:
      UnknownNameError: an unknown name; the message lists the known ones.
    """
    given, name = name, canonical_name(name)
    if name not in DATASETS:
        raise registry.unknown_name(
            "dataset",
            given,
            DATASETS,
            or_else=", or 'tfds:NAME' for another TFDS image classification set, or "
            "'folder:PATH' for class folders or 'npz:PATH' for arrays",
        )
    return DATASETS[name]
