"""What a job makes a machine do, in numbers: images, batches, trainings, bytes."""

import dataclasses
import functools
import math
import tempfile
from typing import Any, NamedTuple

from gift_jax import distill, registry
from gift_jax.data import info as info_lib
from gift_jax.evaluators.accuracy import RESIDENT_BYTES
from gift_jax.plan.cost_model import Machine
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import codecs, store
from gift_jax.specs import JobSpec, StudentSpec, base
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
_STUDENTS_AT_ONCE = 8  # by default, on accelerators
_SCORED_AT_ONCE = 256  # by RDED


class Trainings(NamedTuple):
    """Students that differ in seed and learning rate, and where they are measured."""

    first: StudentSpec
    students: int
    split: str


class Batching(NamedTuple):
    """Equal steps, of so many images on each of some devices."""

    steps: int
    per_device: int
    devices: int


@dataclasses.dataclass(frozen=True)
class Workload:
    """A job, one of those of `specs.expand`, on a machine."""

    spec: JobSpec
    machine: Machine

    @functools.cached_property
    def info(self) -> info_lib.DatasetInfo:
        """The real dataset.

        Raises:
          InputError: its size is not known before it is opened.
        """
        given = self.spec.dataset
        name = info_lib.ALIASES.get(given.name.lower(), given.name)
        if name not in _IMAGES:
            raise registry.unknown_name("dataset of known size", name, _IMAGES)
        info = info_lib.DATASETS[name]
        normalization = base.normalization("dataset", given.mean, given.std)
        return dataclasses.replace(
            info,
            image_size=given.image_size or info.image_size,
            normalization=normalization or info.normalization,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.info.image_size, self.info.image_size, self.info.channels)

    @property
    def real_images(self) -> dict[str, int]:
        """How many there are in the splits "train", "validation" and "test"."""
        train, test = _IMAGES[self.info.name]
        held_out = self.spec.dataset.validation_images
        return {"train": train - held_out, "validation": held_out, "test": test}

    @property
    def distilled_images(self) -> int:
        """Images that students are trained on."""
        return self.info.num_classes * self.spec.distilled.ipc

    @property
    def batch_size(self) -> int:
        """Images in a student's training step."""
        asked = self.spec.train.batch_size
        return asked or batches.official_batch_size(self.distilled_images)

    def devices_for(self, batch_size: int) -> int:
        """The most devices of the machine that a batch divides over.

        Raises:
          InputError: it does not divide over the hosts, or not over all devices though
            the config gives it for the students.
        """
        if batch_size == self.spec.train.batch_size:
            batches.check_batch_size(batch_size, self.machine.devices)
        if batch_size % (hosts := self.machine.hosts):
            raise InputError(
                f"a batch of {batch_size} does not divide over {hosts} hosts: take a "
                "multiple of their number, or plan for one of them, which trains its "
                "share of the students with --shard"
            )
        places: Any = range(self.machine.host_devices)
        return hosts * len(batches.devices_for(batch_size // hosts, places))

    @functools.cached_property
    def trainings(self) -> list[Trainings]:
        """All students; of tuning the rates that are tried in any case."""
        tuning, found = self.spec.tuning, []
        tried = len(tuning.factors) * len(tuning.seeds)
        for students in self.spec.setups:
            found.append(Trainings(students[0], len(students), "test"))
            if tuning.enabled:
                found += [Trainings(students[0], tried, "validation"), found[-1]]
        return found

    @property
    def at_once(self) -> int:
        """The most students that may train at once."""
        return self.spec.train.students_at_once or _STUDENTS_AT_ONCE

    def evaluation(self, split: str) -> Batching:
        """A network on a split; the last batches are padded."""
        images, machine = self.real_images[split], self.machine
        batch_size = min(self.spec.train.eval_batch_size, images)
        per_device = math.ceil(batch_size / machine.devices)
        of_host = math.ceil(images / machine.hosts)
        steps = math.ceil(of_host / (per_device * machine.host_devices))
        return Batching(steps, per_device, machine.devices)

    def scoring(self, rded: distill.Rded) -> Batching:
        """The teacher on crops, class by class on one device."""
        classes = self.info.num_classes
        images = min(rded.images_per_class, self.real_images["train"] // classes)
        steps = classes * math.ceil(images * rded.crops_per_image / _SCORED_AT_ONCE)
        return Batching(steps, _SCORED_AT_ONCE, 1)

    @property
    def labelling(self) -> Batching:
        """The teacher on all views; the last batch of every chunk is padded."""
        local, devices = self.machine.host_devices, self.machine.devices
        images, chunks = self.distilled_images, self.stored[1][:: self.machine.hosts]
        per_device = math.ceil(min(self.spec.relabel.batch_size, images) / local)
        if self.spec.relabel.source == "online":
            # By every host, and once for students that train at once.
            groups = sum(math.ceil(t.students / self.at_once) for t in self.trainings)
            chunks, devices = [images] * groups * self.spec.train.epochs, local
        steps = sum(math.ceil(rows / (per_device * local)) for rows in chunks)
        return Batching(steps, per_device, devices)

    @functools.cached_property
    def stored(self) -> tuple[int, list[int]]:
        """Bytes of the soft labels on disk, and images in each of their chunks."""
        if self.spec.relabel.source != "store":
            return 0, []
        with tempfile.TemporaryDirectory() as directory:
            empty = store.open_store(
                directory,
                views=self.spec.views,
                num_images=self.distilled_images,
                num_classes=self.info.num_classes,
                codec=codecs.get_codec(self.spec.relabel.format),
            )
            chunks = [stop - start for _, start, stop in empty.missing_chunks()]
            return empty.total_bytes, chunks

    @property
    def resident_bytes(self) -> int:
        """Of test images that stay on one device."""
        test = math.prod(self.image_shape) * self.real_images["test"]
        per_device = math.ceil(test / self.machine.devices)
        return per_device if per_device <= RESIDENT_BYTES else 0
