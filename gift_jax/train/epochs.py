"""The loop over epochs: programs for some devices, and what they measured."""

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

# Of one `lax.scan`: long enough that devices do not wait for the host, short enough
# that a job which is asked to stop does so soon.
_MOST_STEPS_AT_ONCE = 64

Data = views.TrainData | StreamedData
# Told the sizes of the batches that were dispatched last; whether to stop there.
Stop = Callable[[np.ndarray], bool]
# Trains on some batches of a view, and measures.
Step = Callable[
    [TrainState, views.TrainData, Any, np.ndarray],
    tuple[TrainState, dict[str, jax.Array]],
]


@dataclasses.dataclass(frozen=True)
class EpochMetrics:
    """What was measured in the steps of one epoch.

    Attributes:
      parts: Of every dispatch, in their order: what `train_step` returns, by name, of
        one step or with steps as the first axis. Devices may still be at work on them.
      sizes: (steps,) images in the batches.
      students: (students,) of several, () of one.
    """

    parts: Sequence[Mapping[str, Any]]
    sizes: np.ndarray
    students: tuple[int, ...] = ()

    @functools.cached_property
    def values(self) -> dict[str, np.ndarray]:
        """(steps,) float32 each, or (steps, students); waits for the devices."""
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
        """The first step whose loss or gradient is not finite, and what it is."""
        # The gradient as well: its norm overflows a step before the loss, and that of
        # the last step shows in no loss.
        found = [
            (int(bad[0]), f"the {name} is {self.values[name][bad[0]]}")
            for name in ("loss", "gradient_norm")
            if len(bad := np.flatnonzero(~np.isfinite(self.values[name])))
        ]
        return min(found, key=lambda first: first[0], default=None)


@dataclasses.dataclass(frozen=True, eq=False)
class RunEpoch:
    """Trains an epoch, or what of it is left, on some devices; see `make_run_epoch`.

    Attributes:
      step: Trains on one batch.
      steps: Trains on several of equal size, the batches first.
      most: Batches that it is given at once.
      devices: Of all hosts.
      view_images: What makes the images of a view.
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
        """Returns before the last dispatch is done; all earlier ones are.

        Args:
          state: Is donated.
          data: This host's copy, and so is the view.
          view: Of all images.
          batches: Those of all devices.
          earlier: Metrics of the steps that were trained before, (steps, students)
            each.
          stop: Asked after every dispatch whether to end there.

        Returns:
          The new state and the metrics of all steps of the epoch.
        """
        collected: list[Mapping[str, Any]] = [earlier] if earlier else []
        done = len(earlier["loss"]) if earlier else 0
        here = [i for i, d in enumerate(self.devices) if d in own(self.devices)]
        calls = [
            (len(part), part[:, here] if len(part) > 1 else part[0, here])
            for part in _parts(batches, done, self.most)
        ]
        wait = not run_ahead(self.devices)
        with contextlib.closing(self._feed(data, view, calls)) as feed:
            for (length, indices), some in zip(calls, feed, strict=False):
                function = self.steps if length > 1 else self.step
                state, metrics = function(state, some, view, indices)
                # The host is one dispatch ahead, so that it can stop soon.
                jax.block_until_ready((state.step, metrics) if wait else collected[-1:])
                collected.append(metrics)
                sizes = batches.sizes[done : done + length]
                done += length
                if stop is not None and stop(sizes):
                    break
        return state, EpochMetrics(collected, batches.sizes[:done], batches.students)

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
      students: How many students train at once, each in its own order: every array
        of the state has them as its first axis, batches as their last but one. None
        stands for one student without such an axis.
      whole: Whether a step is one program, and the steps of an epoch a `lax.scan` of
        it, or a few of equal lengths; otherwise it is three, and the host dispatches
        every step. None stands for the former except on CPUs, where XLA (jaxlib
        0.10.2) runs gradients of convolutions inside of a loop several times slower
        than outside, and compiles longer than short runs last. Images that are
        streamed are trained on step by step.
    """
    streamed = isinstance(view_images, StreamedViews)
    # Every device has images of its own where they are streamed.
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
    """The batches of an epoch after those done, (steps, devices, ..., B) at once.

    There are parts of two lengths at most, and the rest, of one step. Where they begin
    does not depend on what is done.
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
    """A step as three programs, each compiled once for all students it is the same for.

    A grid of optimizers and losses compiles its networks once for every loss, and not
    for every optimizer.
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
    """A function with its options bound, over students and over devices."""
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
    """Trains, and hands over the state after every epoch.

    Epoch e sees view e modulo the number of stored views. Everything random is a
    function of the keys and the epoch, so a training that is resumed with the
    state of any step goes on exactly.

    Args:
      state: Of one student, or of several (`stack_states`).
      data: The images.
      soft_labels: Of every view; None trains on the hard labels of view e.
      run_epoch: From `make_run_epoch`, for as many students.
      first_epoch: The first that is trained.
      epochs: The number after the last.
      batch_size: Images in a batch over all devices.
      order_keys: A typed key for each student.
      devices: Those of `run_epoch`.
      earlier: Metrics of the steps of the first epoch that are trained already,
        (steps, students) each.
      stop: Whether to stop in the middle of an epoch, see `Stop`.

    Yields:
      (epoch, state, metrics), on which devices may still be at work. The state is
      consumed when the next is asked for. After a stop in the middle of an epoch the
      metrics are those of its first steps, and nothing else must be asked for.

    Raises:
      InputError: the batch size does not divide over the devices.
    """
    check_batch_size(batch_size, len(devices))
    state, data = replicate((state, data), devices)
    several = len(order_keys) > 1
    keys = jnp.stack(list(order_keys)) if several else order_keys[0]
    labels = HardLabels(epochs) if soft_labels is None else soft_labels

    def start_reading(epoch: int) -> Callable[[], tuple[Any, EpochBatches]]:
        # Before the devices are given the epoch before: behind it they would not get
        # to the order until they have trained it.
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
