"""Teachers that are trained here, on the hard labels of a real train split."""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import augment, losses, optimizers
from gift_jax.data import image_split, loader, preprocess
from gift_jax.runtime.errors import UserError
from gift_jax.runtime.progress import ProgressBar
from gift_jax.soft_labels import views
from gift_jax.streams import Purpose, stream_key
from gift_jax.train.batches import devices_for, steps_per_epoch
from gift_jax.train.checkpoint import Checkpoints
from gift_jax.train.epochs import Data
from gift_jax.train.fit import fit
from gift_jax.train.step import create_train_state
from gift_jax.train.streaming import StreamedData

_log = logging.getLogger(__name__)

# Number of checkpoints that a training saves.
_SAVES = 10
# Largest train split that is kept in memory, in bytes of decoded pixels (Tiny-ImageNet:
# 1.2 GB); larger ones are read while they are trained on.
RESIDENT_BYTES = 2**31


class DivergedError(UserError, ArithmeticError):
    """The loss of a teacher's training, or its gradient, is no longer finite."""


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """How a teacher is trained.

    Attributes:
      optimizer: Optimizer and its schedule.
      epochs: Passes over the train split.
      batch_size: Images in a step over all devices.
      augmentation: Augmentation of the training images; labels of mixed images are
        mixed.
      seed: Seed of initialisation, order and augmentation.
      label_noise: Fraction of the train images that have a wrong label throughout.
    """

    optimizer: optimizers.OptimizerSpec
    epochs: int
    batch_size: int
    augmentation: augment.AugmentSpec
    seed: int
    label_noise: float = 0.0

    @property
    def recipe(self) -> dict[str, Any]:
        """The spec's part of a teacher's recipe."""
        found = dataclasses.asdict(self) | {"augmentation": self.augmentation.recipe}
        if not self.label_noise:  # keeps recipes without label noise as they were
            del found["label_noise"]
        return found


def train_teacher(
    model: nn.Module,
    split: image_split.ImageSplit,
    spec: TrainingSpec,
    normalization: preprocess.Normalization,
    *,
    checkpoints_directory: pathlib.Path,
    devices: Sequence[jax.Device] | None = None,
    workers: int | None = None,
) -> Any:
    """Trains a teacher on the hard labels of a real train split, or resumes it.

    The weights after the last epoch are returned; no test image is used.

    Args:
      model: Network, with batch norm synchronised over `AXIS`.
      split: The train split.
      spec: Optimizer, epochs and augmentation.
      normalization: Normalisation of pixels to the network's inputs.
      checkpoints_directory: Directory of checkpoints, from which a training is resumed.
      devices: Devices of this host; as many are used as the batch divides over. None
        means all.
      workers: Processes to read a large split with, 0 for none; by default
        `loader.default_workers`.

    Returns:
      Variables of the network, on the host.

    Raises:
      DivergedError: the loss or its gradient became NaN or infinite.
      InputError: the batch does not divide over the hosts.
      PreemptedError: the job was asked to stop.
    """
    devices = devices_for(spec.batch_size, devices or jax.local_devices())
    checkpoints = Checkpoints(
        checkpoints_directory, keep=2, identity={"optimizer": spec.optimizer.name}
    )
    total = spec.epochs * len(split)
    with checkpoints, ProgressBar("teacher", total=total, unit="img") as bar:
        state, record = fit(
            create_train_state(
                model,
                spec.optimizer,
                split.images(np.arange(1)).shape[1:],
                epochs=spec.epochs,
                steps_per_epoch=steps_per_epoch(len(split), spec.batch_size),
                init_key=stream_key(spec.seed, Purpose.TEACHER_INIT),
                dropout_key=stream_key(spec.seed, Purpose.TEACHER_DROPOUT),
            ),
            _data(split, spec, workers),
            loss=losses.get_loss("ce"),
            view_images=views.AugmentedViews(spec.augmentation, normalization),
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            order_key=stream_key(spec.seed, Purpose.TEACHER_ORDER),
            devices=devices,
            checkpoints=checkpoints,
            save_every=max(spec.epochs // _SAVES, 1),
            on_start=lambda record: bar.start(
                record.images(len(split), spec.batch_size)
            ),
            on_epoch=lambda record, metrics: bar.update(0, **metrics),
            on_batch=bar.update,
        )
    if record.diverged_step is not None:
        raise DivergedError(
            "the teacher's training diverged: its loss or gradient is not finite in "
            f"step {record.diverged_step}, epoch {record.diverged_epoch}; lower its "
            f"learning rate, {spec.optimizer.learning_rate:g} "
            "(teacher.optimizer.learning_rate)"
        )
    return jax.device_get(state.evaluation_variables)


def noisy_labels(labels: np.ndarray, fraction: float, key: jax.Array) -> np.ndarray:
    """Labels of which some are wrong: symmetric label noise.

    Args:
      labels: (N,) int32 classes, each of which occurs.
      fraction: Fraction of the labels to change, in [0, 1], each to one of the other
        classes with equal probability.
      key: Decides which labels are changed, and to what.

    Returns:
      (N,) int32.
    """
    count = round(fraction * len(labels))
    which, what = jax.random.split(key)
    chosen = np.asarray(jax.random.permutation(which, len(labels))[:count])
    num_classes = int(labels.max()) + 1
    by = np.asarray(jax.random.randint(what, (count,), 1, num_classes))
    noisy = np.array(labels)
    noisy[chosen] = (labels[chosen] + by) % num_classes
    return noisy


def _data(
    split: image_split.ImageSplit, spec: TrainingSpec, workers: int | None
) -> Data:
    view_key = stream_key(spec.seed, Purpose.TEACHER_VIEWS)
    noise_key = stream_key(spec.seed, Purpose.TEACHER_LABEL_NOISE)
    labels = jnp.asarray(noisy_labels(split.labels, spec.label_noise, noise_key))
    num_bytes = split.images(np.arange(1)).nbytes * len(split)
    if num_bytes <= RESIDENT_BYTES:
        return views.TrainData(jnp.asarray(split.all_images()), labels, view_key)
    if workers is None:
        workers = loader.default_workers(split, num_bytes)
    _log.info("the train split is read while it is trained on (%d workers)", workers)
    return StreamedData(labels, view_key, split, workers)
