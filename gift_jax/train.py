"""Training: the state, the data-parallel step, and the loop over epochs."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.training import train_state

from gift_jax import hosts, losses, optimizers, views
from gift_jax import soft_labels as soft_labels_lib

AXIS = "batch"


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


class EpochBatches(NamedTuple):
    """Which images are in which batch of one epoch.

    Attributes:
      full: (steps, devices, batch / devices) int32.
      rest: (devices, remainder) int32, the last, smaller batch, or None. All
        devices compute the whole of it, so it need not divide among them and
        the mean over devices is still the mean over its images.
    """

    full: np.ndarray
    rest: np.ndarray | None

    @property
    def students(self) -> tuple[int, ...]:
        """(students,) of stacked batches, () of those of one student."""
        return self.full.shape[2:-1]


def epoch_batches(
    key: jax.Array, epoch: int, *, num_images: int, batch_size: int, num_devices: int
) -> EpochBatches:
    """Shuffles the images of an epoch into batches; every image is in one.

    Args:
      key: Typed key of the order.
      epoch: Epoch number.
      num_images: N.
      batch_size: Images in a batch over all devices.
      num_devices: Devices to spread a batch over.
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_images)
    indices = np.asarray(order, np.int32)
    steps, remainder = divmod(num_images, batch_size)
    full = indices[: steps * batch_size].reshape(
        steps, num_devices, batch_size // num_devices
    )
    rest = None
    if remainder:
        rest = np.tile(indices[steps * batch_size :], (num_devices, 1))
    return EpochBatches(full, rest)


def stack_batches(batches: Sequence[EpochBatches]) -> EpochBatches:
    """The batches of several students, with the students as the last axis but one."""
    full = np.stack([b.full for b in batches], axis=-2)
    rests = [b.rest for b in batches if b.rest is not None]
    return EpochBatches(full, np.stack(rests, axis=-2) if rests else None)


class EpochMetrics(NamedTuple):
    """What was measured in the steps of one epoch.

    Attributes:
      values: (steps,) float32 each, or (steps, students): what `train_step` returns.
      sizes: (steps,) images in the batches.
    """

    values: dict[str, np.ndarray]
    sizes: np.ndarray

    def of_student(self, index: int) -> "EpochMetrics":
        """The metrics of one of several students."""
        values = {name: values[:, index] for name, values in self.values.items()}
        return EpochMetrics(values, self.sizes)

    def means(self) -> dict[str, float]:
        """Means over the images of the epoch."""
        return {
            name: float(np.average(values, weights=self.sizes))
            for name, values in self.values.items()
        }


class DivergedError(ArithmeticError):
    """The training loss, or its gradient, is no longer finite.

    Attributes:
      epoch: The epoch it happened in, counted from zero.
      step: The optimizer step it happened in, counted from zero.
    """

    def __init__(self, epoch: int, step: int, what: str, value: float) -> None:
        super().__init__(f"the {what} is {value} in step {step}, epoch {epoch}")
        self.epoch = epoch
        self.step = step


def check_finite(epoch: int, metrics: EpochMetrics) -> None:
    """Raises DivergedError where the loss of a step or its gradient is not finite."""
    # The gradient as well: that of the last step shows in no loss.
    for name, what in (("loss", "training loss"), ("gradient_norm", "gradient's norm")):
        values = metrics.values[name]
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            step = epoch * len(values) + int(bad[0])
            raise DivergedError(epoch, step, what, float(values[bad[0]]))


RunEpoch = Callable[
    [TrainState, views.TrainData, Any, EpochBatches], tuple[TrainState, EpochMetrics]
]


@functools.lru_cache(maxsize=64)
def make_run_epoch(
    *,
    loss: losses.Loss,
    view_images: views.ViewImages,
    devices: tuple[jax.Device, ...],
    students: int | None = None,
    scan: bool | None = None,
) -> RunEpoch:
    """Compiles an epoch for some devices.

    Equal arguments give the same compiled functions.

    Args:
      loss: Per-example loss.
      view_images: Makes the images of a view.
      devices: Devices of all hosts to spread batches over, see `hosts.devices`.
      students: How many students train at once, each in its own order: every array
        of the state has them as its first axis, batches as their last but one (see
        `stack_batches`). None stands for one student without such an axis.
      scan: Whether an epoch is one `lax.scan`, without work on the host, or the
        host dispatches every step, in parts. None stands for a scan except on CPUs,
        where XLA (jaxlib 0.10.2) runs gradients of convolutions inside of a loop
        several times slower than outside, and compiles longer than short runs last.

    Returns:
      `run_epoch(state, data, view, batches)`, which returns the new
      state and the metrics of the steps. The state that is passed in is donated.
      Batches are those of all devices, everything else is this host's copy.
    """
    on_cpu = devices[0].platform == "cpu"
    scan = not on_cpu if scan is None else scan
    # Steps that run ahead of each other on virtual CPU devices can wait for one
    # another's threads forever.
    wait = on_cpu and len(devices) > 1
    if scan:
        step, steps = _whole_steps(loss, view_images, devices, students)
    else:
        step = _step_in_parts(loss, view_images, devices, students)
    here = [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]

    def run_epoch(
        state: TrainState, data: views.TrainData, view: Any, batches: EpochBatches
    ) -> tuple[TrainState, EpochMetrics]:
        calls = [(step, indices[here]) for indices in batches.full]
        if scan and len(batches.full):
            calls = [(steps, batches.full[:, here])]
        if batches.rest is not None:
            calls.append((step, batches.rest[here]))
        collected = []
        for function, indices in calls:
            state, metrics = function(state, data, view, indices)
            collected.append(metrics)
            if wait:
                jax.block_until_ready((state.step, metrics))
        return state, _epoch_metrics(collected, batches)

    return run_epoch


Step = Callable[
    [TrainState, views.TrainData, Any, np.ndarray],
    tuple[TrainState, dict[str, jax.Array]],
]


def _whole_steps(
    loss: losses.Loss,
    view_images: views.ViewImages,
    devices: tuple[jax.Device, ...],
    students: int | None,
) -> tuple[Step, Step]:
    """`train_step` as one program, and with the indices of many batches as another."""
    step = _of_students(
        functools.partial(train_step, loss=loss, view_images=view_images),
        students,
        (0, None, None, 0),
    )

    def steps(
        state: TrainState, data: views.TrainData, view: Any, indices: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        return jax.lax.scan(
            lambda state, batch: step(state, data, view, batch), state, indices
        )

    one, many = (
        _mapped(function, devices, (None, None, None, axis), donate_argnums=(0,))
        for function, axis in ((step, 0), (steps, 1))
    )
    return one, many


def _step_in_parts(
    loss: losses.Loss,
    view_images: views.ViewImages,
    devices: tuple[jax.Device, ...],
    students: int | None,
) -> Step:
    """A step as three programs, each compiled once for all students it is the same for.

    A grid of optimizers and losses compiles its networks once for every loss, and not
    for every optimizer.
    """
    batch_of = _batch_part(view_images, devices, students)
    gradients_of = _gradients_part(loss, devices, students)
    updated = _update_part(devices, students)

    def step(
        state: TrainState, data: views.TrainData, view: Any, indices: np.ndarray
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        batch = batch_of(data, view, indices)
        return updated(state, gradients_of(state.network, batch))

    return step


@functools.lru_cache(maxsize=64)
def _batch_part(
    view_images: views.ViewImages, devices: tuple[jax.Device, ...], students: int | None
) -> Callable:
    part = functools.partial(make_batch, view_images=view_images)
    students_part = _of_students(part, students, (None, None, 0))
    return _mapped(students_part, devices, (None, None, 0), out_axes=0)


@functools.lru_cache(maxsize=64)
def _gradients_part(
    loss: losses.Loss, devices: tuple[jax.Device, ...], students: int | None
) -> Callable:
    part = functools.partial(batch_gradients, loss=loss)
    students_part = _of_students(part, students, (0, 0))
    return _mapped(students_part, devices, (None, 0), out_axes=0)


@functools.lru_cache(maxsize=64)
def _update_part(devices: tuple[jax.Device, ...], students: int | None) -> Callable:
    part = _of_students(update, students, (0, 0))
    return _mapped(part, devices, (None, 0), donate_argnums=(0,))


def _of_students(
    function: Callable, students: int | None, in_axes: tuple[int | None, ...]
) -> Callable:
    if students is None:
        return function
    return jax.vmap(function, in_axes=in_axes, axis_size=students)


def _mapped(
    function: Callable,
    devices: tuple[jax.Device, ...],
    in_axes: tuple[int | None, ...],
    *,
    out_axes: int | None = None,
    donate_argnums: tuple[int, ...] = (),
) -> Callable:
    return jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        devices=devices,
        donate_argnums=donate_argnums,
    )


def _epoch_metrics(
    collected: list[dict[str, jax.Array]], batches: EpochBatches
) -> EpochMetrics:
    steps, devices = batches.full.shape[:2]
    sizes = [devices * batches.full.shape[-1]] * steps
    if batches.rest is not None:
        sizes.append(batches.rest.shape[-1])
    # From (students,) of a step or (steps, students) of a scan; or () and (steps,).
    values = {
        name: np.concatenate(
            [np.reshape(m[name], (-1, *batches.students)) for m in collected]
        )
        for name in collected[0]
    }
    return EpochMetrics(values, np.asarray(sizes))


def train_epochs(
    state: TrainState,
    data: views.TrainData,
    soft_labels: soft_labels_lib.SoftLabels,
    run_epoch: RunEpoch,
    *,
    first_epoch: int,
    epochs: int,
    batch_size: int,
    order_keys: Sequence[jax.Array],
    devices: Sequence[jax.Device],
) -> Iterator[tuple[int, TrainState, EpochMetrics]]:
    """Trains, and hands over the state after every epoch.

    Epoch e sees view e modulo the number of stored views. Everything random is a
    function of the keys and the epoch, so a training that is resumed with the
    state of an epoch's end goes on exactly.

    Args:
      state: Of one student, or of several (`stack_states`).
      data: The distilled images.
      soft_labels: Of every view.
      run_epoch: From `make_run_epoch`, for as many students.
      first_epoch: The first that is trained.
      epochs: The number after the last.
      batch_size: Images in a batch over all devices.
      order_keys: A typed key for each student.
      devices: Those of `run_epoch`.

    Yields:
      (epoch, state, metrics). The state is consumed when the next is asked for.

    Raises:
      ValueError: the batch size does not divide over the devices.
    """
    check_batch_size(batch_size, len(devices))
    state, data = replicate((state, data), devices)
    numbers = range(first_epoch, epochs)
    read = soft_labels_lib.prefetched(
        soft_labels, [epoch % soft_labels.views for epoch in numbers]
    )
    for epoch, view in zip(numbers, read, strict=True):
        of_students = [
            epoch_batches(
                key,
                epoch,
                num_images=len(data.labels),
                batch_size=batch_size,
                num_devices=len(devices),
            )
            for key in order_keys
        ]
        batches = of_students[0]
        if len(of_students) > 1:
            batches = stack_batches(of_students)
        state, metrics = run_epoch(state, data, replicate(view, devices), batches)
        yield epoch, state, metrics


def stack_states(states: Sequence[TrainState]) -> TrainState:
    """The states of students of one shape as one, with the students first."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack_state(state: TrainState, index: int) -> TrainState:
    """The state of one of several students."""
    return jax.tree.map(lambda leaf: leaf[index], state)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Puts a copy of every array on every device, so that no step moves it again.

    Every host puts its own copies on those of the devices that are its own.
    """
    own = [d for d in devices if d.process_index == jax.process_index()]
    mesh = jax.sharding.Mesh(np.asarray(own), (AXIS,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_put(tree, everywhere)


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Raises ValueError unless the batch divides evenly over the devices."""
    if batch_size < 1 or batch_size % num_devices:
        below = batch_size - batch_size % num_devices
        nearest = [size for size in (below, below + num_devices) if size > 0]
        raise ValueError(
            f"a batch of {batch_size} does not divide over {num_devices} devices; "
            f"the nearest sizes that do are {' and '.join(map(str, nearest))} "
            "(train.batch_size)"
        )


def devices_for(
    batch_size: int, local_devices: Sequence[jax.Device]
) -> tuple[jax.Device, ...]:
    """The most devices that a batch divides evenly over, equally many of every host.

    Args:
      batch_size: Images in a batch over all devices.
      local_devices: Those of this host.

    Raises:
      ValueError: it does not even divide over the hosts.
    """
    for number in range(len(local_devices), 0, -1):
        if batch_size % (number * hosts.count()) == 0:
            return hosts.devices(local_devices[:number])
    raise ValueError(
        f"a batch of {batch_size} does not divide over {hosts.count()} hosts; set "
        "train.batch_size to a multiple of their number"
    )


def official_batch_size(num_images: int) -> int:
    """The batch size of the official evaluator for N distilled images."""
    for most_images, batch_size in ((10, 10), (500, 50), (20_000, 100)):
        if num_images <= most_images:
            return batch_size
    return 200
