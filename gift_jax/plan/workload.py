"""What a config makes a machine do, in numbers: images, batches, trainings, bytes."""

import dataclasses
import functools
import math

from gift_jax import registry
from gift_jax.data import info as info_lib
from gift_jax.evaluators.accuracy import RESIDENT_BYTES
from gift_jax.plan import cost_model
from gift_jax.soft_labels.codecs import get_codec, stored_bytes
from gift_jax.specs import settings, students
from gift_jax.teachers import teacher
from gift_jax.train import batches

# Train and test images, by the pages of the datasets; of ImageNet's subsets about
# 1,300 and exactly 50 a class.
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
class Workload:
    """A config on a machine.

    Attributes:
      config: One of those of `settings.expand`.
      machine: What it runs on.
    """

    config: settings.Config
    machine: cost_model.Machine

    @functools.cached_property
    def info(self) -> info_lib.DatasetInfo:
        """The real dataset.

        Raises:
          ValueError: its size is not known before it is opened.
        """
        section = self.config.dataset
        if section.name not in _IMAGES:
            raise registry.unknown_name("dataset of known size", section.name, _IMAGES)
        info = info_lib.DATASETS[section.name]
        return dataclasses.replace(
            info,
            image_size=section.image_size or info.image_size,
            normalization=settings.normalization(section) or info.normalization,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.info.image_size, self.info.image_size, self.info.channels)

    @property
    def train_images(self) -> int:
        """Real images for teachers and distillation."""
        held_out = settings.validation_images(self.config)
        return _IMAGES[self.info.name][0] - held_out

    @property
    def test_images(self) -> int:
        """Real images that accuracies are measured on."""
        return _IMAGES[self.info.name][1]

    @property
    def distilled_images(self) -> int:
        """Images that students are trained on."""
        return self.info.num_classes * self.config.distilled.ipc

    @property
    def batch_size(self) -> int:
        """Images in a student's training step."""
        asked = self.config.train.batch_size
        return asked or batches.official_batch_size(self.distilled_images)

    @property
    def training_devices(self) -> int:
        """Devices of one training, as `batches.devices_for` chooses them.

        Raises:
          ValueError: the batch does not divide over them.
        """
        machine, batch_size = self.machine, self.batch_size
        for number in range(machine.host_devices, 0, -1):
            devices = number * machine.hosts
            if batch_size % devices == 0:
                return devices
            if self.config.train.batch_size:
                batches.check_batch_size(batch_size, devices)
        raise ValueError(
            f"the official batch of {batch_size} does not divide over {machine.hosts} "
            "hosts: set train.batch_size to a multiple of their devices, or plan for "
            "one of them, which trains its share of the students with --shard"
        )

    @functools.cached_property
    def trainings(self) -> dict[str, int]:
        """How many trainings there are of every network."""
        found: dict[str, int] = {}
        tuning = self.config.tuning
        for setup in students.setups(self.config):
            count = len(setup)
            if tuning.enabled:
                count = 2 * count + len(tuning.factors) * len(tuning.seeds)
            found[setup[0].network] = found.get(setup[0].network, 0) + count
        return found

    @property
    def soft_label_bytes(self) -> int:
        """On disk; 0 where none are stored."""
        if self.config.relabel.source != "store":
            return 0
        return stored_bytes(
            get_codec(self.config.relabel.format),
            views=settings.views(self.config),
            num_images=self.distilled_images,
            num_classes=self.info.num_classes,
        )

    @property
    def resident_bytes(self) -> int:
        """Of test images that stay on one device."""
        test = math.prod(self.image_shape) * self.test_images
        per_device = math.ceil(test / self.machine.devices)
        return per_device if per_device <= RESIDENT_BYTES else 0

    @functools.cached_property
    def teacher(self) -> teacher.Teacher:
        """The teacher, with shapes in place of its variables."""
        section = self.config.teacher
        model = settings.network(section, section.name, self.info)
        return teacher.Teacher(
            name=section.name,
            model=model,
            variables=teacher.variable_shapes(model, self.image_shape),
            transform=settings.normalization(section) or self.info.normalization,
            top1=math.nan,
            fingerprint="",
        )
