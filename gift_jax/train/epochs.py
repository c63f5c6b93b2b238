"""The loop over epochs: compiled programs for some devices, and their metrics."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import losses
from gift_jax.runtime.devices import mapped, own, replicate, run_ahead
from gift_jax.soft_labels import base, views
from gift_jax.soft_labels.hard import HardLabels
from gift_jax.train.batches import (
    EpochBatches,
    check_batch_size,
    epoch_batches,
    epoch_order,
)
from gift_jax.train.step import (
    TrainState,
    batch_gradients,
    make_batch,
    train_step,
    update,
)
from gift_jax.train.streaming import StreamedData, StreamedViews

# Steps in one `lax.scan`: long enough that devices do not wait for the host, short
# enough that a job which is asked to stop does so soon.
_MOST_STEPS_AT_ONCE = 64

Data = views.TrainData | StreamedData
# Takes the sizes of the batches dispatched last; returns whether to stop there.
Stop = Callable[[np.ndarray], bool]
# Trains on some batches of a view; returns the new state and the metrics.
Step = Callable[
    [TrainState, views.TrainData, Any, np.ndarray],
    tuple[TrainState, dict[str, jax.Array]],
]


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """What was measured in the steps of one epoch.

    Attributes:
      parts: Metrics of every dispatch, in order: those of `train_step` by name, of one
        step or with steps as the first axis. Devices may still be computing them.
      sizes: (steps,) number of images in each batch.
      students: (students,) with several students, () with one.
    """

    parts: Sequence[Mapping[str, Any]]
    sizes: np.ndarray
    students: tuple[int, ...] = ()

    @functools.cached_property
    def values(self) -> dict[str, np.ndarray]:
        """(steps,) or (steps, students) float32 by name; waits for the devices."""
        parts = jax.device_get(self.parts)
        return {
            name: np.concatenate(
                [np.reshape(part[name], (-1, *self.students)) for part in parts]
            )
            for name in parts[0]
        }

    def of_student(self, index: int) -> "EpochMetrics":
        """The metrics of one of the students."""
        if not self.students:
            return self
        values = {name: values[:, index] for name, values in self.values.items()}
        return EpochMetrics([values], self.sizes)

    def means(self) -> dict[str, float]:
        """Means over the images of the epoch."""
        return {
            name: float(np.average(values, weights=self.sizes))
            for name, values in self.values.items()
        }

    def divergence(self) -> tuple[int, str] | None:
        """The first step whose loss or gradient is not finite, and which it is."""
        # The gradient is checked too: its norm overflows a step before the loss, and
        # that of the last step shows in no loss.
        found = [
            (int(bad[0]), f"the {name} is {self.values[name][bad[0]]}")
            for name in ("loss", "gradient_norm")
            if len(bad := np.flatnonzero(~np.isfinite(self.values[name])))
        ]
        return min(found, key=lambda first: first[0], default=None)


@dataclasses.dataclass(frozen=True, eq=False)
class RunEpoch:
    """Trains an epoch, or the rest of one, on some devices; see `make_run_epoch`.

    Attributes:
      step: Trains on one batch.
      steps: Trains on several batches of equal size, with batches as the first axis.
      most: Largest number of batches that `steps` is given at once.
      devices: Devices of all hosts.
      view_images: Makes the images of a view.
    """

    step: Step
    steps: Step
    most: int
    devices: tuple[jax.Device, ...]
    view_images: views.ViewImages

    def __call__(
        self,
        state: TrainState,
        data: Data,
        view: Any,
        batches: EpochBatches,
        *,
        earlier: Mapping[str, np.ndarray] | None = None,
        stop: Stop | None = None,
    ) -> tuple[TrainState, EpochMetrics]:
        """Trains; all dispatches but the last are done when this returns.

        Args:
          state: State to train; donated.
          data: Images and hard labels, this host's copy.
          view: View of all images, this host's copy.
          batches: Batches of all devices.
          earlier: Metrics of the epoch's steps that are trained already, (steps,
            students) each.
          stop: Called after every dispatch; says whether to stop there.

        Returns:
          The new state and the metrics of all steps of the epoch.
        """
        collected: list[Mapping[str, Any]] = [earlier] if earlier else []
        done = len(earlier["loss"]) if earlier else 0
        here = self._here
        calls = [
            (len(part), part[:, here] if len(part) > 1 else part[0, here])
            for part in _parts(batches, done, self.most)
        ]
        wait = not run_ahead(self.devices)
        with contextlib.closing(self._feed(data, view, calls)) as feed:
            for (length, indices), some in zip(calls, feed, strict=False):
                function = self.steps if length > 1 else self.step
                state, metrics = function(state, some, view, indices)
                # The host is only one dispatch ahead, so that it can stop soon.
                jax.block_until_ready((state.step, metrics) if wait else collected[-1:])
                collected.append(metrics)
                sizes = batches.sizes[done : done + length]
                done += length
                if stop is not None and stop(sizes):
                    break
        return state, EpochMetrics(collected, batches.sizes[:done], batches.students)

    @functools.cached_property
    def _here(self) -> list[int]:
        """Places of this host's devices among all."""
        local = set(own(self.devices))
        return [i for i, device in enumerate(self.devices) if device in local]

    def _feed(
        self, data: Data, view: Any, calls: Sequence[tuple[int, np.ndarray]]
    ) -> Generator[views.TrainData]:
        """The data of every call."""
        if not isinstance(data, StreamedData):
            return (data for _ in calls)
        assert isinstance(self.view_images, StreamedViews)
        indices = [indices for _, indices in calls]
        spec = self.view_images.spec
        return data.of_batches(indices, view.number, spec, self.devices)


@functools.lru_cache(maxsize=16)
def make_run_epoch(
    *,
    loss: losses.Loss,
    view_images: views.ViewImages,
    devices: tuple[jax.Device, ...],
    students: int | None = None,
    whole: bool | None = None,
) -> RunEpoch:
    """Compiles an epoch for some devices.

    Equal arguments give the same compiled functions.

    Args:
      loss: Per-example loss.
      view_images: Makes the images of a view.
      devices: Devices of all hosts to spread batches over, see `hosts.devices`.
      students: Number of students that train at once, each in its own order. They are
        the first axis of every array of the state and the last but one of batches. None
        means one student without such an axis.
      whole: Whether a step is one program, and an epoch one or a few `lax.scan`s of it
        of equal lengths; otherwise a step is three programs, and the host dispatches
        every step. None means the former except on CPUs, where XLA (jaxlib 0.10.2) runs
        gradients of convolutions inside a loop several times slower than outside, and
        compiles longer than short runs last. With streamed images the host always
        dispatches every step.
    """
    streamed = isinstance(view_images, StreamedViews)
    # Streamed images differ between devices.
    of_data = views.TrainData(0, None, None) if streamed else None  # type: ignore
    how = (loss, view_images, devices, students, of_data)
    if whole is None:
        whole = devices[0].platform != "cpu"
    if whole:
        step, steps = _whole_steps(*how)
    else:
        step = steps = _step_in_parts(*how)
    most = _MOST_STEPS_AT_ONCE if whole and not streamed else 1
    return RunEpoch(step, steps, most, devices, view_images)


def _parts(batches: EpochBatches, done: int, most: int) -> list[np.ndarray]:
    """The batches of an epoch after those done, in parts (steps, devices, ..., B).

    A whole epoch has parts of at most two lengths, and the last, smaller batch as a
    part of its own. Where parts end does not depend on what is done.
    """
    steps = len(batches.full)
    length = max(-(-steps // max(-(-steps // most), 1)), 1)
    parts = [batches.full[max(s, done) : s + length] for s in range(0, steps, length)]
    if batches.rest is not None and done <= steps:
        parts.append(batches.rest[None])
    return [part for part in parts if len(part)]


def _whole_steps(
    loss: losses.Loss,
    view_images: views.ViewImages,
    devices: tuple[jax.Device, ...],
    students: int | None,
    of_data: views.TrainData | None,
) -> tuple[Step, Step]:
    """`train_step` as one program, and a scan of it over many batches as another."""
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
        mapped(
            function,
            in_axes=(None, of_data, None, axis),
            out_axes=None,
            devices=devices,
            donate_argnums=(0,),
        )
        for function, axis in ((step, 0), (steps, 1))
    )
    return one, many


def _step_in_parts(
    loss: losses.Loss,
    view_images: views.ViewImages,
    devices: tuple[jax.Device, ...],
    students: int | None,
    of_data: views.TrainData | None,
) -> Step:
    """A step as three programs, each compiled once for all students that share it.

    A grid of optimizers and losses compiles its networks once per loss, and not once
    per optimizer.
    """
    part = functools.partial(_part, devices=devices, students=students)
    batch_of = part(
        make_batch, (None, None, 0), in_axes=(of_data, None, 0), view_images=view_images
    )
    gradients_of = part(batch_gradients, (0, 0), in_axes=(None, 0), loss=loss)
    updated = part(update, (0, 0), in_axes=(None, 0), out_axes=None, donate_argnums=0)

    def step(
        state: TrainState, data: views.TrainData, view: Any, indices: np.ndarray
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        batch = batch_of(data, view, indices)
        return updated(state, gradients_of(state.network, batch))

    return step


@functools.lru_cache(maxsize=24)
def _part(
    function: Callable,
    axes_of_students: tuple[int | None, ...],
    *,
    devices: tuple[jax.Device, ...],
    students: int | None,
    in_axes: tuple[Any, ...],
    out_axes: int | None = 0,
    donate_argnums: int | tuple = (),
    **options: Any,
) -> Callable:
    """A function with its options bound, mapped over students and over devices."""
    bound = functools.partial(function, **options)
    return mapped(
        _of_students(bound, students, axes_of_students),
        in_axes=in_axes,
        out_axes=out_axes,
        devices=devices,
        donate_argnums=donate_argnums,
    )


def _of_students(
    function: Callable, students: int | None, in_axes: tuple[int | None, ...]
) -> Callable:
    if students is None:
        return function
    return jax.vmap(function, in_axes=in_axes, axis_size=students)


def train_epochs(
    state: TrainState,
    data: Data,
    soft_labels: base.SoftLabels | None,
    run_epoch: RunEpoch,
    *,
    first_epoch: int,
    epochs: int,
    batch_size: int,
    order_keys: Sequence[jax.Array],
    devices: Sequence[jax.Device],
    earlier: Mapping[str, np.ndarray] | None = None,
    stop: Stop | None = None,
) -> Generator[tuple[int, TrainState, EpochMetrics]]:
    """Trains, and yields the state after every epoch.

    Epoch e sees view e modulo the number of stored views. Everything random is a
    function of the keys and the epoch, so a training that is resumed with the
    state of any step goes on exactly.

    Args:
      state: State of one student, or of several (`stack_states`).
      data: Images and hard labels.
      soft_labels: Soft labels of every view; None trains on hard labels, in epoch e
        with view e.
      run_epoch: From `make_run_epoch`, for the same number of students.
      first_epoch: First epoch to train.
      epochs: Epochs in all, including those before `first_epoch`.
      batch_size: Images in a batch over all devices.
      order_keys: A typed key for each student.
      devices: Devices of `run_epoch`.
      earlier: Metrics of the steps of the first epoch that are trained already,
        (steps, students) each.
      stop: Whether to stop in the middle of an epoch, see `Stop`.

    Yields:
      (epoch, state, metrics), which devices may still be computing. The state is
      donated when the next item is requested. After a stop in the middle of an epoch
      the metrics are those of its first steps, and no further item may be requested.

    Raises:
      InputError: the batch size does not divide over the devices.
    """
    check_batch_size(batch_size, len(devices))
    state, data = replicate((state, data), devices)
    several = len(order_keys) > 1
    keys = jnp.stack(list(order_keys)) if several else order_keys[0]
    labels = HardLabels(epochs) if soft_labels is None else soft_labels

    def start_reading(epoch: int) -> Callable[[], tuple[Any, EpochBatches]]:
        # Dispatched before the previous epoch, as the devices would otherwise compute
        # the order only after having trained that epoch.
        order = epoch_order(keys, epoch, len(data.labels))
        read = labels.start_reading(epoch % labels.views)
        return lambda: (
            read(),
            epoch_batches(order, batch_size=batch_size, num_devices=len(devices)),
        )

    numbers = range(first_epoch, epochs)
    with contextlib.closing(base.prefetched(start_reading, numbers)) as ready:
        for epoch, (view, batches) in zip(numbers, ready, strict=True):
            progress = np.float32(epoch / epochs)
            view = replicate(view.replace(progress=progress), devices)
            state, metrics = run_epoch(
                state, data, view, batches, earlier=earlier, stop=stop
            )
            earlier = None
            yield epoch, state, metrics
