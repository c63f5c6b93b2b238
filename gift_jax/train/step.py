"""Training: the state of a student, and the data-parallel step."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training import train_state

from gift_jax import losses, optimizers
from gift_jax.runtime.devices import AXIS
from gift_jax.soft_labels import views


class Network(struct.PyTreeNode):
    """What the gradient of a student depends on, and that of no other student does.

    Attributes:
      apply_fn: The model's `apply`.
      params: Parameters.
      batch_stats: Running statistics of batch norm.
      dropout_key: Typed key of the student's own randomness.
      step: The number of steps so far.
    """

    apply_fn: Callable = struct.field(pytree_node=False)
    params: Any
    batch_stats: Any
    dropout_key: jax.Array
    step: jax.Array | int


class TrainState(train_state.TrainState):
    """Parameters, optimizer state and batch-norm statistics of one student.

    The learning rate is in the optimizer state, see `optimizers.build_optimizer`.

    Attributes:
      batch_stats: Running statistics of batch norm.
      dropout_key: Typed key of the student's own randomness.
    """

    batch_stats: Any
    dropout_key: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def network(self) -> Network:
        """What the gradient of the next step depends on."""
        return Network(
            self.apply_fn, self.params, self.batch_stats, self.dropout_key, self.step
        )

    @property
    def evaluation_variables(self) -> dict[str, Any]:
        """`variables` with the parameters to evaluate, see `evaluation_params`."""
        params = optimizers.evaluation_params(self.opt_state, self.params)
        return {"params": params, "batch_stats": self.batch_stats}


def create_train_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: Sequence[int],
    *,
    learning_rate: float,
    init_key: jax.Array,
    dropout_key: jax.Array,
) -> TrainState:
    """A freshly initialised student.

    Args:
      model: A network of `gift_jax.models`.
      optimizer: From `optimizers.build_optimizer`.
      image_shape: (H, W, C).
      learning_rate: Peak of the optimizer's schedule.
      init_key: Typed key of the initialisation.
      dropout_key: Typed key of the student's own randomness.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = _init(model, init_key, images)
    opt_state = optimizer.init(variables["params"])
    return TrainState(
        step=0,
        apply_fn=model.apply,
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        tx=optimizer,
        opt_state=optimizers.with_learning_rate(opt_state, learning_rate),
        dropout_key=dropout_key,
    )


@functools.partial(jax.jit, static_argnums=0)
def _init(model: nn.Module, key: jax.Array, images: jax.Array) -> Any:
    return model.init(key, images, train=False)


class Batch(NamedTuple):
    """One device's share of a batch.

    Attributes:
      images: (B, H, W, C) float32, normalised.
      logits: (B, classes) the teacher's.
      labels: (B,) int32 hard labels.
    """

    images: jax.Array
    logits: jax.Array
    labels: jax.Array


def make_batch(
    data: views.TrainData,
    view: Any,
    indices: jax.Array,
    *,
    view_images: views.ViewImages,
) -> Batch:
    """Some images of a view.

    Args:
      data: The whole distilled set.
      view: A view of all images, with its soft labels.
      indices: (B,) images of this device.
      view_images: Makes the images of the view.
    """
    images = view_images(data, view, indices)
    return Batch(images, view.logits[indices], data.labels[indices])


class Gradients(NamedTuple):
    """What one device found in its share of a batch.

    Attributes:
      params: Gradient of the mean loss.
      batch_stats: New running statistics.
      metrics: Scalars: mean loss, and top-1 agreement with the hard labels in [0, 1].
    """

    params: Any
    batch_stats: Any
    metrics: dict[str, jax.Array]


def batch_gradients(network: Network, batch: Batch, *, loss: losses.Loss) -> Gradients:
    """The gradient of the mean loss over this device's share of a batch.

    Runs under a mapped axis named "batch", over which batch norm averages.

    Args:
      network: The same on all devices.
      batch: That of this device.
      loss: Per-example loss.
    """
    step_key = jax.random.fold_in(network.dropout_key, network.step)
    device_key = jax.random.fold_in(step_key, jax.lax.axis_index(AXIS))

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updates = network.apply_fn(
            {"params": params, "batch_stats": network.batch_stats},
            batch.images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": device_key},
        )
        per_example = loss(logits, batch.logits, batch.labels)
        return jnp.mean(per_example), (logits, updates.get("batch_stats", {}))

    (value, (logits, batch_stats)), gradients = jax.value_and_grad(
        mean_loss, has_aux=True
    )(network.params)
    top1 = jnp.mean(jnp.argmax(logits, axis=-1) == batch.labels)
    return Gradients(gradients, batch_stats, {"loss": value, "top1": top1})


def update(
    state: TrainState, gradients: Gradients
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The optimizer's step with the mean gradient of all devices.

    Runs under a mapped axis named "batch".

    Args:
      state: The same on all devices.
      gradients: Those of this device.

    Returns:
      The new state, and means of the metrics with the global norm of the gradient.
    """
    mean = jax.lax.pmean(gradients, AXIS)
    metrics = mean.metrics | {"gradient_norm": optax.tree.norm(mean.params)}
    state = state.apply_gradients(grads=mean.params, batch_stats=mean.batch_stats)
    return state, metrics


def train_step(
    state: TrainState,
    data: views.TrainData,
    view: Any,
    indices: jax.Array,
    *,
    loss: losses.Loss,
    view_images: views.ViewImages,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step: `make_batch`, `batch_gradients` and `update`.

    Args:
      state: The same on all devices.
      data: See `make_batch`.
      view: See `make_batch`.
      indices: See `make_batch`.
      loss: See `batch_gradients`.
      view_images: See `make_batch`.

    Returns:
      The new state and the metrics, see `update`.
    """
    batch = make_batch(data, view, indices, view_images=view_images)
    return update(state, batch_gradients(state.network, batch, loss=loss))


def stack_states(states: Sequence[TrainState]) -> TrainState:
    """The states of students of one shape as one, with the students first."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack_state(state: TrainState, index: int) -> TrainState:
    """The state of one of several students."""
    return jax.tree.map(lambda leaf: leaf[index], state)
