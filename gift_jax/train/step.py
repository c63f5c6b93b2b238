"""Training: the state of a student, and the data-parallel step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from gift_jax import losses, optimizers
from gift_jax.models.registry import variables_for
from gift_jax.runtime.devices import AXIS
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import views
from gift_jax.streams import Purpose, stream_key
from gift_jax.train import batches


class TrainState(struct.PyTreeNode):
    """Parameters, optimizer state and batch-norm statistics of one student.

    The learning rate is in the optimizer state, see `optimizers.build_optimizer`.

    Attributes:
      model: The network's module.
      tx: The optimizer.
      step: Number of steps so far.
      params: Parameters.
      batch_stats: Running statistics of batch norm.
      opt_state: State of the optimizer.
      dropout_key: Typed key of the student's own randomness.
    """

    model: nn.Module = struct.field(pytree_node=False)
    tx: optax.GradientTransformation = struct.field(pytree_node=False)
    step: jax.Array | int
    params: Any
    batch_stats: Any
    opt_state: Any
    dropout_key: jax.Array

    def __repr__(self) -> str:
        size = sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        network = type(self.model).__name__
        return f"TrainState({network}, {size:,} parameters, step {self.step})"

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def network(self) -> "TrainState":
        """The state without the optimizer: all that the next gradient depends on.

        Programs that take it are the same for all optimizers.
        """
        return self.replace(tx=None, opt_state=None)

    @property
    def evaluation_variables(self) -> dict[str, Any]:
        """`variables` with the parameters to evaluate, see `evaluation_params`."""
        params = optimizers.evaluation_params(self.opt_state, self.params)
        return {"params": params, "batch_stats": self.batch_stats}

    def apply_gradients(self, gradients: Any, batch_stats: Any) -> "TrainState":
        """The state after a step of the optimizer, with new batch statistics."""
        updates, opt_state = self.tx.update(gradients, self.opt_state, self.params)
        return self.replace(
            step=self.step + 1,
            params=optax.apply_updates(self.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )


def create_train_state(
    model: nn.Module,
    optimizer: optimizers.OptimizerSpec,
    image_shape: Sequence[int],
    *,
    epochs: int,
    steps_per_epoch: int,
    init_key: jax.Array,
    dropout_key: jax.Array,
) -> TrainState:
    """A freshly initialised student.

    Args:
      model: Applied as `model.apply(variables, images, train=...)`, such as those of
        `gift_jax.models`. Batch norm over several devices needs `axis_name=AXIS`.
      optimizer: Optimizer and its schedule.
      image_shape: (H, W, C).
      epochs: Epochs of the whole training, for the schedule.
      steps_per_epoch: See `batches.steps_per_epoch`.
      init_key: Typed key of the initialisation.
      dropout_key: Typed key of the student's own randomness.

    Raises:
      InputError: the warm-up is longer than the training, or `optimizer` is no
        `OptimizerSpec`.
    """
    if not isinstance(optimizer, optimizers.OptimizerSpec):
        raise InputError(
            f"optimizer is {optimizer!r}, expected an OptimizerSpec, as "
            "OptimizerSpec('adam')"
        )
    variables = variables_for(model, init_key, tuple(image_shape))
    tx = optimizers.build_optimizer(
        optimizer, epochs=epochs, steps_per_epoch=steps_per_epoch
    )
    opt_state = tx.init(variables["params"])
    return TrainState(
        model=model,
        tx=tx,
        step=0,
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizers.with_learning_rate(opt_state, optimizer.learning_rate),
        dropout_key=dropout_key,
    )


def new_student(
    model: nn.Module,
    optimizer: optimizers.OptimizerSpec,
    data: views.TrainData,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
) -> TrainState:
    """A student before its first step.

    Args:
      model: See `create_train_state`.
      optimizer: Optimizer and its schedule.
      data: Data that it will be trained on.
      epochs: Epochs that it will be trained for.
      batch_size: Images in a step.
      seed: Seed of initialisation and dropout.

    Raises:
      InputError: as for `create_train_state`, or there are no images in a step.

    >>> from gift_jax import models
    >>> images, labels = np.zeros((20, 8, 8, 1), np.float32), np.arange(20) % 10
    >>> data = views.TrainData(images, labels, view_key=jax.random.key(0))
    >>> model = models.create_model("conv1", num_classes=10, image_size=8, width=4)
    >>> optimizer = optimizers.OptimizerSpec("muon")
    >>> new_student(model, optimizer, data, epochs=2, batch_size=10)
    TrainState(ConvNet, 698 parameters, step 0)
    """
    return create_train_state(
        model,
        optimizer,
        data.images.shape[1:],
        epochs=epochs,
        steps_per_epoch=batches.steps_per_epoch(len(data.labels), batch_size),
        init_key=stream_key(seed, Purpose.STUDENT_INIT),
        dropout_key=stream_key(seed, Purpose.STUDENT_DROPOUT),
    )


class Batch(NamedTuple):
    """One device's share of a batch.

    Attributes:
      images: (B, H, W, C) float32, normalised.
      logits: (B, classes) logits of the teacher; None where hard labels are trained on.
      labels: (B,) int32 hard labels.
      numbers: (B,) int32 indices of the images in the whole set.
      mix: Mix of the labels, where images are mixed but labels are those of unmixed
        ones; else None.
      progress: Scalar float32, see `losses.at_progress`.
    """

    images: jax.Array
    logits: jax.Array | None
    labels: jax.Array
    numbers: jax.Array
    mix: views.Mix | None
    progress: jax.Array | float


def make_batch(
    data: views.TrainData,
    view: Any,
    indices: jax.Array,
    *,
    view_images: views.ViewImages,
) -> Batch:
    """One device's share of a batch, from a view.

    Args:
      data: The whole distilled set.
      view: A view of all images, with its soft labels; without logits hard labels
        are trained on.
      indices: (B,) indices of this device's images.
      view_images: Makes the images of the view.
    """
    logits = None if view.logits is None else view.logits[indices]
    mix = view_images.mix(data, view, indices)
    images = view_images(data, view, indices)
    labels = data.labels[indices]
    return Batch(images, logits, labels, indices, mix, view.progress)


class Gradients(NamedTuple):
    """Gradient and metrics of one device's share of a batch.

    Attributes:
      params: Gradient; its mean over the devices is that of the mean loss.
      batch_stats: New running statistics.
      metrics: Scalars: mean loss, and top-1 agreement with the hard labels in [0, 1].
    """

    params: Any
    batch_stats: Any
    metrics: dict[str, jax.Array]


def batch_gradients(
    network: TrainState, batch: Batch, *, loss: losses.Loss
) -> Gradients:
    """Contribution of a device's share of a batch to the gradient of the mean loss.

    Runs under a mapped axis named "batch", over which batch norm averages. The loss is
    given the logits of the whole batch, so that a loss that compares examples is the
    same on any number of devices.

    Args:
      network: `TrainState.network`, the same on all devices.
      batch: Share of this device.
      loss: Per-example loss.
    """
    # The same on all devices: `layers.Dropout` folds in the numbers of the images.
    step_key = jax.random.fold_in(network.dropout_key, network.step)
    loss = losses.at_progress(loss, batch.progress)

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updates = network.model.apply(
            {
                "params": params,
                "batch_stats": network.batch_stats,
                "batch": {"numbers": batch.numbers},
            },
            batch.images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": step_key},
        )
        answers, soft, hard, mix = _of_all_devices(
            (logits, batch.logits, batch.labels, batch.mix)
        )
        per_example = loss(answers, soft, hard)
        if mix is not None:
            of_partners = loss(answers, mix.logits, mix.labels)
            per_example = mix.weights * per_example + (1 - mix.weights) * of_partners
        return jnp.mean(per_example), (logits, updates.get("batch_stats", {}))

    (value, (logits, batch_stats)), gradients = jax.value_and_grad(
        mean_loss, has_aux=True
    )(network.params)
    top1 = jnp.mean(jnp.argmax(logits, axis=-1) == batch.labels)
    return Gradients(gradients, batch_stats, {"loss": value, "top1": top1})


def _of_all_devices(tree: Any) -> Any:
    """The whole of arrays of which every device has a share; nothing on one device."""
    if jax.lax.psum(1, AXIS) == 1:
        return tree
    return jax.lax.all_gather(tree, AXIS, tiled=True)


def update(
    state: TrainState, gradients: Gradients
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The optimizer's step with the mean gradient of all devices.

    Runs under a mapped axis named "batch".

    Args:
      state: State, the same on all devices.
      gradients: Gradients of this device.

    Returns:
      The new state, and the mean metrics with the global norm of the gradient.
    """
    mean = jax.lax.pmean(gradients, AXIS)
    metrics = mean.metrics | {"gradient_norm": optax.tree.norm(mean.params)}
    return state.apply_gradients(mean.params, mean.batch_stats), metrics


def train_step(
    state: TrainState,
    data: views.TrainData,
    view: Any,
    indices: jax.Array,
    *,
    loss: losses.Loss,
    view_images: views.ViewImages,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step; see `make_batch`, `batch_gradients` and `update`."""
    batch = make_batch(data, view, indices, view_images=view_images)
    return update(state, batch_gradients(state.network, batch, loss=loss))


def stack_states(states: Sequence[TrainState]) -> TrainState:
    """Stacks the states of students of one shape, with students as the first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@jax.jit
def unstack_state(state: TrainState, index: int) -> TrainState:
    """The state of one of several students."""
    return jax.tree.map(lambda leaf: leaf[index], state)
