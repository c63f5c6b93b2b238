"""The loop over epochs: programs for some devices, and what they measured."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gift_jax import losses
from gift_jax.runtime.devices import AXIS, replicate
from gift_jax.soft_labels import store as soft_labels_lib
from gift_jax.soft_labels import views
from gift_jax.train.batches import (
    EpochBatches,
    check_batch_size,
    epoch_batches,
    stack_batches,
)
from gift_jax.train.step import (
    TrainState,
    batch_gradients,
    make_batch,
    train_step,
    update,
)


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
        `batches.stack_batches`). None stands for one student without such an axis.
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
