"""The teacher of a config."""

import copy
import dataclasses
import os

import flax.linen as nn
from ml_collections.config_dict import ConfigDict

from gift_jax import models, registry
from gift_jax.augment import AugmentSpec
from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Normalization
from gift_jax.runtime.errors import InputError
from gift_jax.specs import base
from gift_jax.specs.network import NetworkSpec
from gift_jax.specs.optimizer import optimizer_spec
from gift_jax.teachers import Transform, torch_teacher
from gift_jax.teachers.ensemble import Ensemble
from gift_jax.torch_io import recognition, torch_import
from gift_jax.train.teacher import TrainingSpec

# The value of `teacher.checkpoint` that stands for torchvision's weights.
TORCHVISION = "torchvision"


@dataclasses.dataclass(frozen=True)
class TeacherSpec:
    """The teacher that labels.

    Attributes:
      name: Name of a network, or of what runs elsewhere: "torch:...", "timm:..." or
        "torchvision:..." of `torch_teacher`, or "package.module:attribute" of anything
        that gives logits.
      network: Its network; None for a teacher that is no network of this project.
      checkpoint: PyTorch file to import, or `TORCHVISION`; "" trains a network, and
        leaves other teachers the weights that they come with.
      mean: Channel means that an imported teacher was trained with; () means the
        dataset's.
      std: Channel standard deviations; () as for `mean`.
      training: How it is trained; None for teachers that are not trained here.
      min_accuracy: Least accuracy on the distilled images in percent; None means a
        tenth of the way from chance to 100.
      resize: See `teachers.Transform`, behind which its accuracy is measured.
      crop: See `resize`.
      transform_views: Whether the views that it labels pass that transform, too.
      also: Further networks, whose logits are averaged with those of the first.
    """

    name: str
    network: NetworkSpec | None
    checkpoint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training: TrainingSpec | None
    min_accuracy: float | None
    resize: int | None
    crop: int | None
    transform_views: bool
    also: tuple["TeacherSpec", ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError for impossible fields."""
        base.normalization("teacher", self.mean, self.std)
        _ = self.transform
        is_torch = torch_teacher.is_torch(self.name)
        if self.network is None and self.checkpoint and not is_torch:
            raise InputError(
                f"teacher.checkpoint is {self.checkpoint}, but {self.name} is no "
                "network of this project: leave it out, and load weights there"
            )
        if registry.is_own(self.name) and not is_torch and self.mean:
            raise InputError(
                f"teacher.mean is {self.mean}, but {self.name} is given pixels in "
                "[0, 1]: leave teacher.mean and teacher.std out, and normalise there"
            )
        labels = [member.label for member in self.members]
        if self.also and not all(member.network for member in self.members):
            raise InputError(
                f"teacher.also averages networks of this project, but of "
                f"{', '.join(labels)} some are none"
            )
        if len(set(labels)) < len(labels):
            raise InputError(f"teacher.also has one network twice: {', '.join(labels)}")

    @classmethod
    def from_section(
        cls, section: ConfigDict, seed: int, *, image_size: int | None = None
    ) -> "TeacherSpec":
        """The one teacher of a section.

        Args:
          section: `teacher` of a config.
          seed: Seed of its training.
          image_size: Side of the dataset's images, by which "auto" chooses between
            networks that have the same weights.

        Raises:
          FileNotFoundError: "auto" has no checkpoint to look at.
          InputError: a field of it cannot be used.
        """
        name = section.name
        network = training = None
        if name == recognition.AUTO:
            network = _recognised(section, image_size)
            name = network.label
        elif registry.split_options(name)[0] in models.MODELS:
            network = NetworkSpec.from_section(section, name)
            if not section.checkpoint:
                training = _training(section, seed)
        elif not (torch_teacher.is_torch(name) or registry.is_own(name)):
            raise registry.unknown_name(
                "teacher",
                name,
                [*models.MODELS, recognition.AUTO],
                or_else=", package.module:attribute, torch:package.module:attribute, "
                "timm:NAME or torchvision:NAME",
            )
        if section.label_noise and training is None:
            raise InputError(
                f"teacher.label_noise is {section.label_noise}, but {name} is not "
                "trained here: leave teacher.checkpoint empty, or the noise at 0"
            )
        if not all(isinstance(text, str) for text in section.also):
            raise InputError(
                f"teacher.also is {section.also}, expected names of networks, as "
                "('resnet20', 'conv3@weights.pth')"
            )
        also = [_another(section, text, seed, image_size) for text in section.also]
        return base.from_section(
            cls,
            section,
            name=name,
            network=network,
            training=training,
            also=tuple(also),
        )

    @property
    def members(self) -> tuple["TeacherSpec", ...]:
        """Its networks one by one."""
        return (dataclasses.replace(self, also=()) if self.also else self, *self.also)

    @property
    def transform(self) -> Transform:
        """Transform of the images on which its accuracy is measured."""
        return Transform(self.resize, self.crop)

    def build(self, dataset: DatasetInfo) -> nn.Module:
        """The module of its networks, for images of the side that they see.

        Raises:
          InputError: as `NetworkSpec.build`, or its transform makes images of another
            side than those it is trained on or labels.
        """
        if self.also:
            return Ensemble(tuple(member.build(dataset) for member in self.members))
        assert self.network is not None
        side = self.transform.side(dataset.image_size)
        if side != dataset.image_size and (self.training or not self.transform_views):
            raise InputError(
                f"teacher.resize and teacher.crop make images of side {side}, but "
                f"those of {dataset.name} are of side {dataset.image_size}: set "
                f"teacher.crop to {dataset.image_size}, or, for an imported teacher, "
                "teacher.transform_views"
            )
        return self.network.build(dataclasses.replace(dataset, image_size=side))

    @property
    def label(self) -> str:
        """Its name with the options that are not the default."""
        if self.also:
            return "+".join(member.label for member in self.members)
        return self.network.label if self.network else self.name.replace("/", "_")

    @property
    def dtype(self) -> str:
        """Data type of the activations of its network."""
        assert self.network is not None
        return self.network.dtype

    @property
    def preprocess(self) -> Normalization | None:
        """Channel statistics that are not the dataset's."""
        return base.normalization("teacher", self.mean, self.std)


def _another(
    section: ConfigDict, text: str, seed: int, image_size: int | None
) -> TeacherSpec:
    """A further teacher, "NAME" or "NAME@CHECKPOINT"; all else is as for the first."""
    name, _, checkpoint = text.partition("@")
    of_another = copy.deepcopy(section)
    of_another.update(name=name, checkpoint=checkpoint, also=())
    return TeacherSpec.from_section(of_another, seed, image_size=image_size)


def _recognised(section: ConfigDict, image_size: int | None) -> NetworkSpec:
    path = os.path.expanduser(section.checkpoint)
    if path in ("", TORCHVISION):
        raise InputError(
            f"teacher.name is 'auto', but teacher.checkpoint is {path!r}: give the "
            "file whose network is to be recognised"
        )
    tensors = torch_import.open_checkpoint(path)
    name, options = recognition.recognise(tensors, path, image_size=image_size)
    whole = {**models.model_options(name), **options}
    return NetworkSpec(name, section.dtype, tuple(sorted(whole.items())))


def _training(section: ConfigDict, seed: int) -> TrainingSpec:
    base.check_least("teacher", section, epochs=1, batch_size=1)
    if not 0 <= section.label_noise < 1:
        raise InputError(
            f"teacher.label_noise is {section.label_noise}, expected a fraction of the "
            "train images in [0, 1)"
        )
    return TrainingSpec(
        optimizer=optimizer_spec(section.optimizer, section.optimizer.name),
        epochs=section.epochs,
        batch_size=section.batch_size,
        augmentation=AugmentSpec(**section.augment),
        seed=seed,
        label_noise=section.label_noise,
    )
