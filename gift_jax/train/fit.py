"""A training from arrays to a trained state, for notebooks and the pipeline.

Nothing here knows of a config or a work directory.
"""

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from gift_jax import losses
from gift_jax.runtime import hosts, preemption
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import views
from gift_jax.soft_labels.base import SoftLabels
from gift_jax.train.batches import devices_for, steps_per_epoch
from gift_jax.train.check import check_fits
from gift_jax.train.checkpoint import StateStore
from gift_jax.train.epochs import (
    Data,
    EpochMetrics,
    make_run_epoch,
    train_epochs,
)
from gift_jax.train.step import TrainState, stack_states, unstack_state
from gift_jax.train.streaming import StreamedData, StreamedViews

_log = logging.getLogger(__name__)

# Several hosts agree on whether to stop after so many steps, or after a longer scan.
_STEPS_BETWEEN_AGREEMENTS = 16

# Measures a network in the state of its training: scalars by name, such as accuracies.
# The state is on the devices, and is donated to the next step.
Evaluator = Callable[[nn.Module, TrainState], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Record:
    """How far a training has come; stored with its checkpoints.

    Attributes:
      finished_epochs: Epochs trained.
      steps: Optimizer steps trained; not a whole number of epochs where a training was
        asked to stop.
      partial: Metrics of the steps of the unfinished epoch, one number per step.
      last: Metrics of the latest evaluation.
      best: Per metric, its maximum so far (meaningful for accuracies only). It is
        chosen on the split that is evaluated, as in the official tables, and therefore
        optimistic.
      evaluated_epochs: Epochs trained before the latest evaluation; 0 before the first.
      gradient_norm_first: Global norm of the gradient in the first step, at
        initialisation.
      train_seconds: Seconds spent training, including compilation but not evaluation;
        an equal share of them where several students train at once.
      diverged_epoch: Epoch, from zero, in which loss or gradient became NaN or
        infinite; the epoch before is the last recorded one. None if neither did.
      diverged_step: Optimizer step, from zero, in which that happened.
    """

    finished_epochs: int = 0
    steps: int = 0
    partial: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    last: Mapping[str, float] = dataclasses.field(default_factory=dict)
    best: Mapping[str, float] = dataclasses.field(default_factory=dict)
    evaluated_epochs: int = 0
    gradient_norm_first: float | None = None
    train_seconds: float = 0.0
    diverged_epoch: int | None = None
    diverged_step: int | None = None

    def images(self, num_images: int, batch_size: int) -> int:
        """Images trained on so far, in all epochs, of a dataset of `num_images`."""
        in_epoch = batch_size * len(self.partial.get("loss", ()))
        return self.finished_epochs * num_images + in_epoch

    @property
    def is_evaluated(self) -> bool:
        """Whether the latest evaluation is that of this very state."""
        return 0 < self.evaluated_epochs == self.finished_epochs and not self.partial


class Fitted(NamedTuple):
    """A trained student.

    Attributes:
      state: State after the last step.
      record: Record of the training. If it diverged, the record is that of its last
        good epoch, and the state is meaningless.
    """

    state: TrainState
    record: Record


def fit(
    state: TrainState,
    data: Data,
    soft_labels: SoftLabels | None = None,
    *,
    loss: losses.Loss,
    view_images: views.ViewImages,
    epochs: int,
    batch_size: int,
    order_key: jax.Array,
    devices: Sequence[jax.Device] | None = None,
    checkpoints: StateStore | None = None,
    save_every: int | None = None,
    evaluators: Sequence[Evaluator] = (),
    evaluate_every: int | None = None,
    on_start: Callable[[Record], None] | None = None,
    on_epoch: Callable[[Record, dict[str, float]], None] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Fitted:
    """Trains a student, or resumes it from its latest checkpoint.

    Args:
      state: From `create_train_state`; trained from where there is no checkpoint, and
        left unchanged.
      data: Images and hard labels, on the devices or read while they are trained on.
      soft_labels: Soft labels of every view; epoch e sees view e modulo their number.
        None trains on hard labels, with a loss that takes None for logits, such as
        "ce".
      loss: Per-example loss, such as `losses.get_loss("gift")`.
      view_images: Makes the images of a view, such as `views.AugmentedViews`.
      epochs: Passes over the images in all, including those before a checkpoint.
      batch_size: Images in a step over all devices.
      order_key: Typed key of the order of images.
      devices: Devices of all hosts, see `hosts.devices`; None means as many as the
        batch divides over.
      checkpoints: Saves and restores the training, such as `Checkpoints`.
      save_every: Epochs between checkpoints; there is another one at every evaluation
        and at the end.
      evaluators: Called after every `evaluate_every` epochs and after the last.
      evaluate_every: Epochs between evaluations; None evaluates after the last only.
      on_start: Called once with the record that the training starts from.
      on_epoch: Called after every epoch, before it is saved, with the record and the
        means of loss, top1 (agreement with hard labels, in [0, 1]) and gradient_norm
        over the epoch. An epoch that is neither evaluated nor saved is reported while
        the next one is trained.
      on_batch: Called after every dispatch with the number of images in it.

    Returns:
      The state and the record. Divergence raises nothing; the record has it.

    Raises:
      PreemptedError: the job was asked to stop; `checkpoints`, if given, hold the last
        step.
      InputError: the batch size does not divide over the devices, or images, labels
        and soft labels do not belong together.
      CheckpointError, CheckpointMismatchError: see `Checkpoints`.

    >>> from gift_jax import models
    >>> from gift_jax.augment import AugmentSpec
    >>> from gift_jax.optimizers import OptimizerSpec
    >>> from gift_jax.soft_labels import AugmentedViews, FixedSoftLabels, TrainData
    >>> from gift_jax.train.step import new_student
    >>> images = np.random.default_rng(0).random((20, 8, 8, 1), np.float32)
    >>> labels = np.arange(20, dtype=np.int32) % 10
    >>> data = TrainData(images, labels, view_key=jax.random.key(0))
    >>> length = dict(epochs=3, batch_size=10)
    >>> model = models.create_model("conv1", num_classes=10, image_size=8, width=4)
    >>> fitted = fit(
    ...     new_student(model, OptimizerSpec("adamw"), data, **length),
    ...     data,
    ...     FixedSoftLabels(5 * np.eye(10, dtype=np.float32)[labels], views=3),
    ...     loss=losses.get_loss("gift"),
    ...     view_images=AugmentedViews(AugmentSpec(diffaug="crop"), None),
    ...     order_key=jax.random.key(1),
    ...     **length,
    ... )
    >>> fitted.record.finished_epochs, fitted.record.steps
    (3, 6)
    """

    def without_index(function: Callable | None) -> Callable | None:
        return None if function is None else lambda index, *rest: function(*rest)

    (fitted,) = fit_together(
        [state],
        data,
        soft_labels,
        loss=loss,
        view_images=view_images,
        epochs=epochs,
        batch_size=batch_size,
        order_keys=[order_key],
        devices=devices,
        checkpoints=[checkpoints],
        save_every=save_every,
        evaluators=evaluators,
        evaluate_every=evaluate_every,
        on_start=without_index(on_start),
        on_epoch=without_index(on_epoch),
        on_batch=on_batch,
    )
    return fitted


def fit_together(
    states: Sequence[TrainState],
    data: Data,
    soft_labels: SoftLabels | None = None,
    *,
    order_keys: Sequence[jax.Array],
    checkpoints: Sequence[StateStore | None] | None = None,
    **options: Any,
) -> list[Fitted]:
    """Trains several students of one shape; those with equally many steps, at once.

    Args:
      states: State of each student.
      data: See `fit`, as for `soft_labels` and the options.
      soft_labels: Soft labels of every view.
      order_keys: A typed key for each student.
      checkpoints: Checkpoints of each student, or None for a student without.
      **options: Other arguments of `fit`. `on_start` and `on_epoch` get the index of
        the student as their first argument; `on_batch` is called once for all that
        train at once.

    Returns:
      What `fit` returns, for each student; it raises the same errors.
    """
    check_fits(states[0], data, soft_labels)
    training = _Training(data=data, soft_labels=soft_labels, **options)
    students = [
        _Student(index, state, order_key, saved)
        for index, (state, order_key, saved) in enumerate(
            zip(states, order_keys, checkpoints or [None] * len(states), strict=True)
        )
    ]
    for student in students:
        student.restore()
    # Each student streams images in its own order, so they train one by one.
    alone = isinstance(data, StreamedData)

    def progress(student: _Student) -> tuple[int, int]:
        return student.record.steps, student.index if alone else 0

    for _, group in itertools.groupby(sorted(students, key=progress), key=progress):
        training.train(list(group))
    return [Fitted(student.state, student.record) for student in students]


@dataclasses.dataclass
class _Student:
    """A student while it trains; see `fit`."""

    index: int
    state: TrainState
    order_key: jax.Array
    checkpoints: StateStore | None
    record: Record = Record()

    def restore(self) -> None:
        if self.checkpoints is None:
            return
        if restored := self.checkpoints.restore_latest(self.state):
            self.state, self.record = restored[0], Record(**restored[1])
            _log.info(
                "resumed after epoch %d, step %d",
                self.record.finished_epochs,
                self.record.steps,
            )

    def save(self, state: TrainState) -> None:
        record = self.record
        if self.checkpoints is not None:
            self.checkpoints.save(
                record.steps,
                state,
                dataclasses.asdict(record),
                top1=record.last.get("top1") if record.is_evaluated else None,
            )

    @property
    def has_diverged(self) -> bool:
        return self.record.diverged_step is not None


@dataclasses.dataclass(kw_only=True)
class _Training:
    """What students that train at once have in common; see `fit`."""

    data: Data
    soft_labels: SoftLabels | None
    loss: losses.Loss
    view_images: views.ViewImages
    epochs: int
    batch_size: int
    devices: Sequence[jax.Device] | None = None
    save_every: int | None = None
    evaluators: Sequence[Evaluator] = ()
    evaluate_every: int | None = None
    on_start: Callable[[int, Record], None] | None = None
    on_epoch: Callable[[int, Record, dict[str, float]], None] | None = None
    on_batch: Callable[[int], None] | None = None
    # Whether the job is to stop, and the steps since its hosts last agreed on it.
    is_preempted: bool = False
    unasked_steps: int = 0

    def train(self, students: Sequence[_Student]) -> None:
        """Trains students with equally many steps behind them to the end."""
        for student in students:
            if self.on_start is not None:
                self.on_start(student.index, student.record)
        several, first = len(students) > 1, students[0].record
        if several:
            state = stack_states([student.state for student in students])
        else:  # a copy, as the loop donates what it is given
            state = jax.device_put(students[0].state, may_alias=False)
        for student in students:  # devices keep one copy, that of the loop
            student.state = jax.device_get(student.state)
        devices = self.devices or devices_for(self.batch_size, jax.local_devices())
        loop = train_epochs(
            state,
            self.data,
            self.soft_labels,
            make_run_epoch(
                loss=self.loss,
                view_images=self._view_images(),
                devices=tuple(devices),
                students=len(students) if several else None,
            ),
            first_epoch=first.finished_epochs,
            epochs=self.epochs,
            batch_size=self.batch_size,
            order_keys=[student.order_key for student in students],
            devices=devices,
            earlier={
                name: np.array([s.record.partial[name] for s in students], np.float32).T
                for name in first.partial
            },
            stop=self.stop,
        )
        started = time.perf_counter()
        with contextlib.closing(loop):
            for epoch, kept, metrics in self._one_behind(loop):
                jax.block_until_ready(metrics.parts)
                trained = time.perf_counter()
                seconds = (trained - started) / len(students)
                self._take(students, epoch, kept, metrics, seconds)
                if self.is_preempted and kept is not None:
                    raise preemption.PreemptedError
                if all(student.has_diverged for student in students):
                    break
                # Evaluations and checkpoints, for which devices wait, do not count.
                started = trained if kept is None else time.perf_counter()
                state = state if kept is None else kept
        for place, student in enumerate(students):
            if not student.has_diverged:
                student.state = unstack_state(state, place) if several else state

    def _one_behind(
        self, loop: Iterable[tuple[int, TrainState, EpochMetrics]]
    ) -> Generator[tuple[int, TrainState | None, EpochMetrics]]:
        """Yields every epoch once the devices train the next, which consumes its state.

        Epochs to be evaluated or saved are yielded at once, with their state.
        """
        behind: tuple[int, None, EpochMetrics] | None = None
        for epoch, state, metrics in loop:
            if behind is not None:
                yield behind
            behind = (epoch, None, metrics)
            if self.is_preempted or any(
                self._is_due(epoch + 1, every)
                for every in (self.evaluate_every, self.save_every)
            ):
                behind = None
                yield epoch, state, metrics

    def stop(self, sizes: np.ndarray) -> bool:
        """Called after every dispatch of batches; says whether the job is to stop."""
        if self.on_batch is not None:
            self.on_batch(int(sizes.sum()))
        self.unasked_steps += len(sizes)
        if hosts.count() == 1 or self.unasked_steps >= _STEPS_BETWEEN_AGREEMENTS:
            self.unasked_steps = 0
            self.is_preempted = preemption.agreed()
        return self.is_preempted

    def _view_images(self) -> views.ViewImages:
        if not isinstance(self.data, StreamedData):
            return self.view_images
        if not isinstance(self.view_images, views.AugmentedViews):
            raise InputError(f"{self.view_images} are no views of streamed images")
        return StreamedViews(**vars(self.view_images))

    def _take(
        self,
        students: Sequence[_Student],
        epoch: int,
        state: TrainState | None,
        metrics: EpochMetrics,
        seconds: float,
    ) -> None:
        """Records an epoch for all students that have not diverged before."""
        several = len(students) > 1
        for place, student in enumerate(students):
            if not student.has_diverged:
                own = state
                if several and state is not None:
                    own = unstack_state(state, place)
                of_student = metrics.of_student(place)
                self._take_one(student, epoch, own, of_student, seconds)

    def _take_one(
        self,
        student: _Student,
        epoch: int,
        state: TrainState | None,
        metrics: EpochMetrics,
        seconds: float,
    ) -> None:
        """Records an epoch, or its steps before it was stopped.

        The state, where there is one, is evaluated if that is due, and saved.
        """
        if found := metrics.divergence():
            step = epoch * self._steps_in_epoch + found[0]
            _log.warning("%s in step %d, epoch %d", found[1], step, epoch)
            student.record = dataclasses.replace(
                student.record, diverged_epoch=epoch, diverged_step=step
            )
            return
        record = self._advanced(student.record, epoch, metrics, seconds)
        is_finished = not record.partial
        is_due = is_finished and self._is_due(epoch + 1, self.evaluate_every)
        if is_due and state is not None:
            record = self._evaluated(record, state)
        student.record = record
        # Before the checkpoint, so that no resumed training skips an epoch that was not
        # reported.
        if is_finished and self.on_epoch is not None:
            self.on_epoch(student.index, record, metrics.means())
        if state is not None:
            student.save(state)

    @property
    def _steps_in_epoch(self) -> int:
        return steps_per_epoch(len(self.data.labels), self.batch_size)

    def _advanced(
        self, record: Record, epoch: int, metrics: EpochMetrics, seconds: float
    ) -> Record:
        """The record after an epoch, or after its steps before it was stopped."""
        values, steps = metrics.values, len(metrics.sizes)
        is_finished = steps == self._steps_in_epoch
        first_norm = record.gradient_norm_first
        if not record.steps:
            first_norm = float(values["gradient_norm"][0])
        return dataclasses.replace(
            record,
            finished_epochs=epoch + is_finished,
            steps=epoch * self._steps_in_epoch + steps,
            partial={} if is_finished else {n: v.tolist() for n, v in values.items()},
            gradient_norm_first=first_norm,
            train_seconds=record.train_seconds + seconds,
        )

    def _is_due(self, finished_epochs: int, every: int | None) -> bool:
        """Whether something that happens every `every` epochs, and last, is due."""
        return finished_epochs == self.epochs or bool(
            every and finished_epochs % every == 0
        )

    def _evaluated(self, record: Record, state: TrainState) -> Record:
        last: dict[str, float] = {}
        for evaluator in self.evaluators:
            found = evaluator(state.model, state)
            if taken := last.keys() & found.keys():
                raise InputError(
                    f"two evaluators measure {', '.join(sorted(taken))}: give what "
                    "yours measures another name"
                )
            last |= {name: float(value) for name, value in found.items()}
        return dataclasses.replace(
            record,
            last=last,
            # `fmax` passes over NaN.
            best={n: float(np.fmax(v, record.best.get(n, v))) for n, v in last.items()},
            evaluated_epochs=record.finished_epochs,
        )
