"""Students trained, evaluated and recorded, alone or several at once."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from gift_jax import losses, optimizers
from gift_jax.evaluators.accuracy import Accuracy
from gift_jax.pipeline.labelling import LabelledDataset
from gift_jax.pipeline.runs import Batching, Run
from gift_jax.pipeline.stages import Job
from gift_jax.runtime import hosts, preemption, progress
from gift_jax.specs import settings
from gift_jax.specs.students import StudentSpec
from gift_jax.streams import Purpose, stream_key
from gift_jax.train import batches, checkpoint
from gift_jax.train.epochs import (
    DivergedError,
    EpochMetrics,
    check_finite,
    make_run_epoch,
    train_epochs,
)
from gift_jax.train.step import (
    TrainState,
    create_train_state,
    stack_states,
    unstack_state,
)

_log = logging.getLogger(__name__)

# One object for equal arguments, so that students share compiled functions.
_get_loss = functools.lru_cache(maxsize=None)(losses.get_loss)

# Students that train at once on an accelerator, unless the config says otherwise.
_MOST_AT_ONCE = 8


def run_students(
    job: Job,
    labelled: LabelledDataset,
    specs: Sequence[StudentSpec],
    *,
    split: str = "test",
) -> Iterator[dict[str, Any]]:
    """Trains students, goes on where they were, or finds them finished.

    Args:
      job: The job.
      labelled: What to train on.
      specs: Students that differ in seed and learning rate only, so that several can
        train at once.
      split: The split to measure them on, "test" or "validation".

    Yields:
      Their rows for the results file, each as soon as it is there.
    """
    batching = _batching(job, len(labelled.data.labels))
    runs = [Run(job, labelled, spec, split, batching) for spec in specs]
    at_once = _students_at_once(job.config.train, batching.devices)
    for start in range(0, len(runs), at_once):
        some = runs[start : start + at_once]
        unfinished = [run for run in some if not run.product.is_finished()]
        _train_together(unfinished)
        for run in some:
            yield run.product.facts()


def _batching(job: Job, num_images: int) -> Batching:
    """The batch size of a config, and the devices to spread it over.

    The official batch sizes do not divide over 4 or 8 devices; of these as many are
    used as it does divide over. A batch size that was asked for must divide.
    """
    asked = job.config.train.batch_size
    all_devices = hosts.devices(job.devices)
    if asked:
        batches.check_batch_size(asked, len(all_devices))
        return Batching(asked, all_devices)
    batch_size = batches.official_batch_size(num_images)
    devices = batches.devices_for(batch_size, job.devices)
    if len(devices) < len(all_devices):
        _log.warning(
            "the official batch of %d is spread over %d of %d devices; set "
            "train.batch_size to use all",
            batch_size,
            len(devices),
            len(all_devices),
        )
    return Batching(batch_size, devices)


def _students_at_once(section: settings.Config, devices: Sequence[jax.Device]) -> int:
    if section.students_at_once:
        return section.students_at_once
    return 1 if devices[0].platform == "cpu" else _MOST_AT_ONCE


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How far a run has come; stored with its checkpoints.

    Attributes:
      finished_epochs: Epochs trained.
      top1_last: Top-1 of the latest evaluation, in percent.
      top1_best: The highest top-1 of all evaluations. It is chosen on the test
        split, as the official tables are, and therefore optimistic.
      top5_last: Top-5 of the latest evaluation, in percent.
      gradient_norm_first: Global norm of the gradient in the first step, at
        initialisation.
      train_seconds: Time spent training, compilation included and evaluation not.
    """

    finished_epochs: int = 0
    top1_last: float | None = None
    top1_best: float | None = None
    top5_last: float | None = None
    gradient_norm_first: float | None = None
    train_seconds: float = 0.0

    def evaluated(self, accuracy: Accuracy) -> "Outcome":
        """With the accuracies of another evaluation."""
        return dataclasses.replace(
            self,
            top1_last=accuracy.top1,
            top1_best=max(accuracy.top1, self.top1_best or 0.0),
            top5_last=accuracy.top5,
        )


def _train_together(runs: Sequence[Run]) -> None:
    """Trains runs of one shape to their ends, those that stand equally far at once."""
    with contextlib.ExitStack() as stack:
        trainings = [_Training(run, stack) for run in runs]
        by_progress = sorted(trainings, key=_finished_epochs)
        for _, group in itertools.groupby(by_progress, key=_finished_epochs):
            _train_to_the_end(list(group))
        for training in trainings:
            training.finish()


def _finished_epochs(training: "_Training") -> int:
    return training.outcome.finished_epochs


def _train_to_the_end(trainings: Sequence["_Training"]) -> None:
    first, several = trainings[0], len(trainings) > 1
    run, done = first.run, first.outcome.finished_epochs
    total = run.job.config.train.epochs
    state = first.state
    if several:
        state = stack_states([training.state for training in trainings])
    epochs = train_epochs(
        state,
        run.labelled.data,
        run.labelled.soft_labels,
        make_run_epoch(
            loss=_get_loss(run.spec.loss, **dict(run.spec.loss_options)),
            view_images=run.labelled.view_images,
            devices=run.batching.devices,
            students=len(trainings) if several else None,
        ),
        first_epoch=done,
        epochs=total,
        batch_size=run.batching.size,
        order_keys=[
            stream_key(training.run.spec.seed, Purpose.STUDENT_ORDER)
            for training in trainings
        ],
        devices=run.batching.devices,
    )
    title = run.title + (f" and {len(trainings) - 1} more" if several else "")
    with progress.ProgressBar(title, total=total, unit="epoch", done=done) as bar:
        started = time.perf_counter()
        for epoch, state, metrics in epochs:
            seconds = (time.perf_counter() - started) / len(trainings)
            is_preempted = preemption.agreed()
            for index, training in enumerate(trainings):
                training.epoch_done(
                    epoch,
                    state,
                    metrics,
                    seconds,
                    index=index if several else None,
                    save=is_preempted,
                )
            bar.update(1, **first.shown)
            if is_preempted:
                raise preemption.PreemptedError
            if all(training.diverged for training in trainings):
                break
            started = time.perf_counter()


class _Training:
    """A run while it trains: evaluated, logged and saved as it goes.

    Args:
      run: The run; its directory is locked.
      stack: Closes what is opened here.
    """

    def __init__(self, run: Run, stack: contextlib.ExitStack) -> None:
        _log.info("run %s", run.title)
        self.run = run
        self.diverged: DivergedError | None = None
        self.shown: dict[str, float] = {}
        self._section = run.job.config.train
        directory = stack.enter_context(run.product.making(resumable=True))
        self._model = settings.network(
            run.job.config.student, run.spec.network, run.job.data.info
        )
        self._checkpoints = stack.enter_context(
            checkpoint.Checkpoints(
                directory / "checkpoints",
                keep=self._section.keep_checkpoints,
                identity={
                    "network": run.spec.network,
                    "optimizer": dataclasses.asdict(run.spec.optimizer),
                },
            )
        )
        self.state, self.outcome = self._starting_point()
        self._writer = stack.enter_context(
            progress.MetricsWriter(
                directory, finished_epochs=self.outcome.finished_epochs
            )
        )

    def _starting_point(self) -> tuple[TrainState, Outcome]:
        """The latest checkpoint, or another run's weights, or a fresh state."""
        state = self._fresh_state()
        restored = self._checkpoints.restore_latest(state)
        if restored is not None:
            state, progress_made = restored
            outcome = Outcome(**progress_made)
            _log.info("resumed after epoch %d", outcome.finished_epochs)
            return state, outcome
        if self._section.init_from:
            directory = pathlib.Path(self._section.init_from)
            state = checkpoint.restore_weights(directory, state)
            _log.info(
                "started from the weights of %s, with a fresh optimizer state",
                directory,
            )
        return state, Outcome()

    def _fresh_state(self) -> TrainState:
        spec, data = self.run.spec, self.run.labelled.data
        assert spec.optimizer.learning_rate is not None
        return create_train_state(
            self._model,
            optimizers.build_optimizer(
                spec.optimizer,
                epochs=self._section.epochs,
                steps_per_epoch=-(-len(data.labels) // self.run.batching.size),
            ),
            data.images.shape[1:],
            learning_rate=spec.optimizer.learning_rate,
            init_key=stream_key(spec.seed, Purpose.STUDENT_INIT),
            dropout_key=stream_key(spec.seed, Purpose.STUDENT_DROPOUT),
        )

    def epoch_done(
        self,
        epoch: int,
        state: TrainState,
        metrics: EpochMetrics,
        seconds: float,
        *,
        index: int | None,
        save: bool,
    ) -> None:
        """Takes note of an epoch, unless the run has diverged.

        Args:
          epoch: Its number.
          state: At its end, of all students that train at once.
          metrics: Likewise.
          seconds: This student's share of the time it took.
          index: Which of several students this one is; None where it is alone.
          save: Whether to save even where it is not due.
        """
        if self.diverged:
            return
        if index is not None:
            metrics = metrics.of_student(index)
        try:
            check_finite(epoch, metrics)
        except DivergedError as error:
            _log.warning("%s: %s", self.run.title, error)
            self.diverged = error
            return
        first_norm = self.outcome.gradient_norm_first
        if first_norm is None:
            first_norm = float(metrics.values["gradient_norm"][0])
        self.outcome = dataclasses.replace(
            self.outcome,
            finished_epochs=epoch + 1,
            gradient_norm_first=first_norm,
            train_seconds=self.outcome.train_seconds + seconds,
        )
        self.shown = metrics.means()
        last, eval_every = self._section.epochs, self.run.eval_every
        save_every = self._section.checkpoint_every or eval_every
        is_evaluated = is_due(epoch + 1, every=eval_every, last=last)
        is_saved = (
            save or is_evaluated or is_due(epoch + 1, every=save_every, last=last)
        )
        if is_saved and index is not None:
            state = unstack_state(state, index)
        if is_evaluated:
            self._evaluate(state)
        # Before the checkpoint: a resumed run drops lines of later epochs, and would
        # miss this one.
        self._writer.write(epoch, **self.shown)
        if is_saved:
            self._save(state, is_evaluated)

    def _evaluate(self, state: TrainState) -> None:
        run = self.run
        evaluator = run.job.evaluator(run.labelled.transform, run.split)
        # From the host, as the split may lie on more devices.
        accuracy = evaluator(self._model, jax.device_get(state.evaluation_variables))
        self.outcome = self.outcome.evaluated(accuracy)
        self.shown |= {
            f"{run.split}_top1": accuracy.top1,
            f"{run.split}_top5": accuracy.top5,
        }

    def _save(self, state: TrainState, is_evaluated: bool) -> None:
        self._checkpoints.save(
            self.outcome.finished_epochs,
            state,
            dataclasses.asdict(self.outcome),
            top1=self.outcome.top1_last if is_evaluated else None,
        )

    def finish(self) -> None:
        """Records the outcome."""
        fields = dataclasses.asdict(self.outcome)
        del fields["finished_epochs"]
        if self.diverged:
            fields["status"] = "diverged"
            fields["diverged_epoch"] = self.diverged.epoch
            fields["diverged_step"] = self.diverged.step
        else:
            fields["status"] = "finished"
        self.run.product.finish(**self.run.row(**fields))


def is_due(finished_epochs: int, *, every: int, last: int) -> bool:
    """Whether something that happens every so many epochs, and last, is due."""
    return finished_epochs % every == 0 or finished_epochs == last
