"""Expert trajectories: weights of networks after every epoch on the real images.

Reference: Cazenavette et al., "Dataset Distillation by Matching Training Trajectories"
(MTT), CVPR 2022, https://arxiv.org/abs/2203.11932, with the constants that DATM gives
for `buffer/buffer_FTD.py` in the README of its official code,
https://github.com/NUS-HPC-AI-Lab/DATM. Two things differ: its SGD seeks flat minima
(FTD's GSAM, rho 0.01 and alpha 0.3), where ours is plain, as MTT's; and the operation
of DSA is drawn for each image, where it is drawn for each batch there.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gift_jax import losses, models, optimizers
from gift_jax.augment import DIFFAUG_STRATEGY, AugmentSpec
from gift_jax.data import fingerprint
from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Preprocess
from gift_jax.data.real import RealDataset
from gift_jax.distilled import zca
from gift_jax.runtime import hosts
from gift_jax.runtime.progress import ProgressBar
from gift_jax.soft_labels import views
from gift_jax.streams import Purpose, stream_key
from gift_jax.teachers.flax_teacher import variable_shapes
from gift_jax.train.batches import devices_for, steps_per_epoch
from gift_jax.train.fit import Record, fit
from gift_jax.train.step import TrainState, create_train_state
from gift_jax.train.teacher import DivergedError, TrainingSpec

# `--mom=0. --batch_train=256` of the README; no weight decay.
_SGD: dict[str, Any] = {"weight_decay": 0.0, "momentum": 0.0, "schedule": "constant"}
_BATCH = 256
# `--dsa_strategy`, and `aug_mode` of `ParamDiffAug`.
_DSA = AugmentSpec(diffaug=DIFFAUG_STRATEGY, diffaug_mode="single")
_CHUNK = 1000  # images preprocessed at a time
_WEIGHT = np.dtype("<f4")


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The weights of one expert in a file, a row of float32 for every epoch.

    Weights are the only state of plain SGD, so training resumes from the last row.

    Attributes:
      path: Path of the file, which may not exist yet.
      size: Number of weights of the network.
    """

    path: pathlib.Path
    size: int

    def __len__(self) -> int:
        """Rows, the first of which is before the first epoch."""
        stored = self.path.stat().st_size if self.path.exists() else 0
        return stored // (self.size * _WEIGHT.itemsize)

    def __getitem__(self, epoch: int) -> np.ndarray:
        """(size,) float32 weights after `epoch` epochs; -1 for the last."""
        rows = np.memmap(self.path, _WEIGHT, "r", shape=(len(self), self.size))
        return np.array(rows[epoch])

    def append(self, params: Any) -> None:
        """Writes the weights after another epoch, over what was half-written."""
        if not hosts.is_primary():
            return
        end = len(self) * self.size * _WEIGHT.itemsize
        self.path.touch()
        with self.path.open("r+b") as file:
            file.truncate(end)
            file.seek(end)
            file.write(flat(params).astype(_WEIGHT).tobytes())

    def save(
        self,
        steps: int,
        state: TrainState,
        progress: Mapping[str, Any],
        *,
        top1: float | None = None,
    ) -> None:
        """See `train.checkpoint.Checkpoints`; saves at the ends of epochs only."""
        del steps, top1
        if not progress["partial"]:
            self.append(state.params)

    def restore_latest(self, state: TrainState) -> tuple[TrainState, dict] | None:
        """See `train.checkpoint.Checkpoints`."""
        epochs = hosts.broadcast(len(self)) - 1
        if epochs < 1:
            return None
        _, unravel = ravel_pytree(state.params)
        params = unravel(jnp.asarray(self[epochs]))
        return state.replace(params=params), {"finished_epochs": epochs}


@dataclasses.dataclass(frozen=True)
class Experts:
    """Networks of the official recipe, and how they are trained.

    Attributes:
      count: Number of networks.
      epochs: Epochs of each network.
      learning_rate: Learning rate of plain SGD.
      width: Width of the ConvNet.
      zca: Whether images are whitened as kornia does, as in the official code.
      seed: Seed of all networks.
      augmentation: Augmentation of the real images.
    """

    count: int
    epochs: int
    learning_rate: float
    width: int
    zca: bool
    seed: int
    augmentation: AugmentSpec = _DSA

    @property
    def training(self) -> TrainingSpec:
        """How each network is trained."""
        sgd = optimizers.OptimizerSpec("sgd", self.learning_rate, **_SGD)
        return TrainingSpec(sgd, self.epochs, _BATCH, self.augmentation, self.seed)

    @property
    def recipe(self) -> dict[str, Any]:
        """What the networks depend on, besides data."""
        network = {"width": self.width, "zca": self.zca}
        return {"count": self.count, **network, "training": self.training.recipe}

    def network_options(self, info: DatasetInfo) -> tuple[str, dict[str, Any]]:
        """Name and options of the official `ConvNet`, on Tiny-ImageNet `ConvNetD4`."""
        name = "conv3" if info.image_size <= 32 else "conv4"
        return name, {"norm": "instance", "width": self.width}

    def network(self, info: DatasetInfo) -> nn.Module:
        """The network of every expert."""
        name, options = self.network_options(info)
        size = {"num_classes": info.num_classes, "image_size": info.image_size}
        return models.create_model(name, **size, **options)

    def preprocess(self, data: RealDataset) -> Preprocess:
        """Turns pixels into what the networks are fed.

        Raises:
          InputError: there are fewer images than the whitening has dimensions.
        """
        if self.zca:
            return zca.fit_kornia(data.train.all_images())
        return data.info.normalization

    def open(self, info: DatasetInfo, directory: pathlib.Path) -> list[Trajectory]:
        """The trajectories in a directory, whether they exist yet or not."""
        return [
            Trajectory(directory / f"expert_{number:03d}.f32", self.size(info))
            for number in range(self.count)
        ]

    def size(self, info: DatasetInfo) -> int:
        """Number of weights of the network."""
        shapes = variable_shapes(self.network(info), info.image_shape)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    def train(
        self,
        data: RealDataset,
        directory: pathlib.Path,
        *,
        devices: Sequence[jax.Device] | None = None,
    ) -> list[Trajectory]:
        """Trains the experts one after the other, or resumes after the last epoch.

        Args:
          data: The real dataset.
          directory: Directory of the trajectories: 4 bytes for every weight and epoch.
          devices: Devices of this host; None stands for all.

        Raises:
          DivergedError: a loss became NaN or infinite.
          InputError: see `preprocess`.
          PreemptedError: the job was asked to stop.
        """
        spec, split = self.training, data.train
        labels = jnp.asarray(split.labels)
        images = jnp.asarray(network_inputs(self.preprocess(data), split.all_images()))
        devices = devices_for(spec.batch_size, devices or jax.local_devices())
        model, loss = self.network(data.info), losses.get_loss("ce")
        directory.mkdir(parents=True, exist_ok=True)
        trajectories = self.open(data.info, directory)
        done = len(split) * sum(max(0, len(one) - 1) for one in trajectories)
        total = len(split) * self.count * spec.epochs
        with ProgressBar("experts", total=total, unit="img", done=done) as bar:
            for number, trajectory in enumerate(trajectories):
                key = stream_key(spec.seed, Purpose.EXPERT)
                init, order, view, dropout = jax.random.split(
                    jax.random.fold_in(key, number), 4
                )
                state = create_train_state(
                    model,
                    spec.optimizer,
                    data.info.image_shape,
                    epochs=spec.epochs,
                    steps_per_epoch=steps_per_epoch(len(split), spec.batch_size),
                    init_key=init,
                    dropout_key=dropout,
                )
                rows = hosts.broadcast(len(trajectory))
                if rows > spec.epochs:
                    continue
                if rows == 0:
                    trajectory.append(state.params)
                record = fit(
                    state,
                    views.TrainData(images, labels, view),
                    loss=loss,
                    view_images=views.AugmentedViews(spec.augmentation, None),
                    epochs=spec.epochs,
                    batch_size=spec.batch_size,
                    order_key=order,
                    devices=devices,
                    checkpoints=trajectory,
                    save_every=1,
                    on_epoch=lambda record, metrics: bar.update(0, **metrics),
                    on_batch=bar.update,
                ).record
                _check_finite(number, record)
        return trajectories


def _check_finite(number: int, record: Record) -> None:
    if record.diverged_step is not None:
        raise DivergedError(
            f"expert {number} diverged: its loss or gradient is not finite in step "
            f"{record.diverged_step}, epoch {record.diverged_epoch}"
        )


def fingerprint_of(trajectories: Sequence[Trajectory]) -> str:
    """16 hexadecimal digits for the trajectories' contents, see `data.fingerprint`."""
    return fingerprint.of_files([trajectory.path for trajectory in trajectories])


def network_inputs(preprocess: Preprocess, pixels: np.ndarray) -> np.ndarray:
    """Network inputs (N, S, S, C) float32 of uint8 pixels, some at a time."""
    chunks = range(0, len(pixels), _CHUNK)
    return np.concatenate(
        [
            preprocess.apply(pixels[start : start + _CHUNK].astype(np.float32) / 255)
            for start in chunks
        ]
    )


def flat(params: Any) -> np.ndarray:
    """All weights of a network in one row, in the order of `ravel_pytree`."""
    return np.asarray(ravel_pytree(jax.device_get(params))[0])


def unflatten(model: nn.Module, info: DatasetInfo) -> Callable[[jax.Array], Any]:
    """Turns a row of weights into what `model.apply` takes."""
    shapes = variable_shapes(model, info.image_shape)
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape), shapes)
    return ravel_pytree(zeros)[1]
