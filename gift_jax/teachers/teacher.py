"""The teacher: trained here or imported, and stored."""

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import augment, losses, optimizers
from gift_jax.data import preprocess, real
from gift_jax.runtime import hosts, preemption
from gift_jax.runtime.progress import ProgressBar
from gift_jax.soft_labels import views
from gift_jax.soft_labels.store import FixedSoftLabels
from gift_jax.streams import Purpose, stream_key
from gift_jax.train import batches, checkpoint
from gift_jax.train.epochs import (
    DivergedError,
    EpochMetrics,
    check_finite,
    make_run_epoch,
    train_epochs,
)
from gift_jax.train.step import TrainState, create_train_state

_log = logging.getLogger(__name__)

VARIABLES_DIRECTORY = "variables"
# A training is saved so many times.
_SAVES = 10
# Images and labels of the train split must fit beside the network.
_LARGEST_TRAIN_SPLIT_BYTES = 8 * 2**30


class TeacherError(ValueError):
    """The teacher does not fit the data that it is to label."""


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network, what it must be fed, and how good it is.

    Attributes:
      name: Model name, as in `models.create_model`.
      model: The network.
      variables: Its parameters and batch statistics.
      transform: From pixels to its inputs.
      top1: Accuracy on the real test split, in percent.
      fingerprint: Of its product, for the recipes of what it labels.
    """

    name: str
    model: nn.Module
    variables: Any
    transform: preprocess.Preprocess
    top1: float
    fingerprint: str

    def logits(
        self, variables: Any, inputs: jax.Array, transform: preprocess.Preprocess
    ) -> jax.Array:
        """Logits for images that were preprocessed for a student.

        Args:
          variables: The teacher's variables, an argument so that compiled
            functions do not hold them as constants.
          inputs: (B, H, W, C) float.
          transform: The student's preprocessing, which is undone if the
            teacher's is another.

        Returns:
          (B, num_classes) float32.
        """
        if transform is not self.transform and transform != self.transform:
            inputs = self.transform.apply(transform.invert(inputs))
        return jnp.asarray(self.model.apply(variables, inputs, train=False))


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """How a teacher is trained.

    Attributes:
      optimizer: With its schedule.
      epochs: Passes over the train split.
      batch_size: Images in a step over all devices.
      augmentation: Of the training images.
      seed: Of initialisation, order and augmentation.
    """

    optimizer: optimizers.OptimizerSpec
    epochs: int
    batch_size: int
    augmentation: augment.AugmentSpec
    seed: int


def train_teacher(
    model: nn.Module,
    data: real.RealDataset,
    spec: TrainingSpec,
    normalization: preprocess.Normalization,
    *,
    checkpoints_directory: pathlib.Path,
    devices: Sequence[jax.Device],
) -> Any:
    """Trains a teacher on the hard labels of a real train split, or goes on with it.

    The weights after the last epoch are returned; no test image takes part.

    Args:
      model: With its batch norm synchronised over `AXIS`.
      data: The real dataset; its train split must fit into memory.
      spec: Optimizer, epochs and augmentation.
      normalization: From pixels to its inputs.
      checkpoints_directory: Where an interrupted training is found.
      devices: Devices of all hosts, see `hosts.devices`.

    Returns:
      Variables, on the host.

    Raises:
      TeacherError: the train split is too large to be held in memory, or the loss
        became NaN or infinite.
      PreemptedError: the job was asked to stop.
    """
    batches.check_batch_size(spec.batch_size, len(devices))
    images = _train_images(data.train)
    state = _initial_state(model, spec, images)
    checkpoints = checkpoint.Checkpoints(
        checkpoints_directory, keep=2, identity={"optimizer": spec.optimizer.name}
    )
    with checkpoints:
        done = 0
        if (restored := checkpoints.restore_latest(state)) is not None:
            state, progress = restored
            done = progress["finished_epochs"]
            _log.info("resumed the teacher after epoch %d", done)
        # Cross-entropy with hard labels reads no soft label.
        unused_logits = np.zeros((len(images), data.info.num_classes), np.float16)
        epochs = train_epochs(
            state,
            views.TrainData(
                images=jnp.asarray(images),
                labels=jnp.asarray(data.train.labels),
                view_key=stream_key(spec.seed, Purpose.TEACHER_VIEWS),
            ),
            FixedSoftLabels(unused_logits, views=spec.epochs),
            make_run_epoch(
                loss=losses.get_loss("ce"),
                view_images=views.AugmentedViews(spec.augmentation, normalization),
                devices=tuple(devices),
            ),
            first_epoch=done,
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            order_keys=[stream_key(spec.seed, Purpose.TEACHER_ORDER)],
            devices=devices,
        )
        with ProgressBar("teacher", total=spec.epochs, unit="epoch", done=done) as bar:
            for epoch, state, metrics in epochs:
                _check_finite(epoch, metrics, spec)
                bar.update(1, **metrics.means())
                is_preempted = preemption.agreed()
                if is_preempted or (epoch + 1) % max(spec.epochs // _SAVES, 1) == 0:
                    checkpoints.save(epoch + 1, state, {"finished_epochs": epoch + 1})
                if is_preempted:
                    raise preemption.PreemptedError
    return jax.device_get(state.evaluation_variables)


def _initial_state(
    model: nn.Module, spec: TrainingSpec, images: np.ndarray
) -> TrainState:
    optimizer = optimizers.build_optimizer(
        spec.optimizer,
        epochs=spec.epochs,
        steps_per_epoch=-(-len(images) // spec.batch_size),
    )
    assert spec.optimizer.learning_rate is not None
    return create_train_state(
        model,
        optimizer,
        images.shape[1:],
        learning_rate=spec.optimizer.learning_rate,
        init_key=stream_key(spec.seed, Purpose.TEACHER_INIT),
        dropout_key=stream_key(spec.seed, Purpose.TEACHER_DROPOUT),
    )


def _check_finite(epoch: int, metrics: EpochMetrics, spec: TrainingSpec) -> None:
    try:
        check_finite(epoch, metrics)
    except DivergedError as error:
        raise TeacherError(
            f"the teacher's training diverged: {error}; lower its learning rate, "
            f"{spec.optimizer.learning_rate:g} (teacher.optimizer.learning_rate)"
        ) from error


def _train_images(split: real.ImageSplit) -> np.ndarray:
    size = split.images(np.arange(1)).nbytes * len(split)
    if size > _LARGEST_TRAIN_SPLIT_BYTES:
        raise TeacherError(
            f"the train split takes {size / 2**30:.0f} GiB as arrays, more than the "
            f"{_LARGEST_TRAIN_SPLIT_BYTES / 2**30:.0f} GiB teachers are trained on "
            "here; import a trained one with --config.teacher.checkpoint=PATH"
        )
    return split.all_images()


def make_score(teacher: Teacher) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The teacher's cross-entropy, by which RDED chooses crops.

    Returns:
      `score(pixels, labels)` -> (B,) float32 for (B, H, W, C) pixels in [0, 1] and
      (B,) integer labels.
    """

    @jax.jit
    def cross_entropy(variables: Any, pixels: jax.Array, labels: jax.Array) -> Any:
        inputs = teacher.transform.apply(pixels)
        logits = jnp.asarray(teacher.model.apply(variables, inputs, train=False))
        return losses.get_loss("ce")(logits, logits, labels)

    variables = jax.device_put(teacher.variables)
    return lambda pixels, labels: np.asarray(cross_entropy(variables, pixels, labels))


def save_teacher(directory: pathlib.Path, variables: Any) -> None:
    """Writes a teacher's variables with Orbax, on the primary host."""
    if hosts.is_primary():
        checkpoint.save_variables(directory / VARIABLES_DIRECTORY, variables)


def load_teacher(
    directory: pathlib.Path, model: nn.Module, image_shape: Sequence[int]
) -> Any:
    """Reads what `save_teacher` wrote.

    Raises:
      checkpoint.CheckpointMismatchError: it belongs to another model.
    """
    shapes = variable_shapes(model, image_shape)
    return checkpoint.load_variables(directory / VARIABLES_DIRECTORY, like=shapes)


def variable_shapes(model: nn.Module, image_shape: Sequence[int]) -> Any:
    """Shapes of the variables of a model for images (H, W, C)."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
    )
    return {"batch_stats": {}, **shapes}
