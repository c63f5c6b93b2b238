"""Students of a job: named, trained, evaluated and recorded, one or several at once."""

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from gift_jax import evaluators, losses, registry
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.labelling import LabelledDataset
from gift_jax.pipeline.products import Product, file_fingerprint
from gift_jax.runtime import hosts, progress, provenance
from gift_jax.runtime.checksums import fingerprint
from gift_jax.soft_labels.base import SoftLabels
from gift_jax.soft_labels.hard import SoftHardSoft
from gift_jax.specs import StudentSpec
from gift_jax.streams import Purpose, stream_key
from gift_jax.teachers import TeacherOfClasses
from gift_jax.train import batches, checkpoint, step
from gift_jax.train.fit import Fitted, Record, fit_together

_log = logging.getLogger(__name__)

# Directory of runs by the split that they are measured on.
_DIRECTORIES = {"test": "runs", "validation": "tuning"}
_CHECKPOINTS = "checkpoints"
# Characters; file systems allow 255, and the name of a lock is longer.
_LONGEST_NAME = 200


class UnfinishedError(Exception):
    """A student is not trained to its end yet.

    Attributes:
      directory: Directory of its run.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__(f"{directory} is not finished")
        self.directory = directory


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One student of a job, and its place in the work directory.

    Attributes:
      job: The job.
      labelled: What it is trained on.
      student: The student.
      split: The split it is measured on, "test" or "validation".
      batch_size: Images in a step over all devices.
      devices: Devices that a batch is spread over.
    """

    job: Job
    labelled: LabelledDataset
    student: StudentSpec
    split: str
    batch_size: int
    devices: tuple[jax.Device, ...]

    @functools.cached_property
    def name(self) -> str:
        """Its name in the work directory, different for every student."""
        student, epochs = self.student, self.job.spec.train.epochs
        is_official = self.batch_size == batches.official_batch_size(self.num_images)
        parts = [
            self.labelled.name,
            student.network.label,
            student.loss.label,
            student.optimizer.label,
            f"lr{student.optimizer.learning_rate:g}",
            f"e{epochs}",
            "" if is_official else f"b{self.batch_size}",
            f"from{self.init_from}" if self.init_from else "",
            f"s{student.seed}",
        ]
        name = self.job.spec.tagged("_".join(filter(None, parts)), "run")
        if len(name) <= _LONGEST_NAME and "/" not in name:
            return name
        short = name.replace("/", "_")[: _LONGEST_NAME - 17]
        return f"{short}-{fingerprint({'name': name})}"

    @property
    def num_images(self) -> int:
        """Number of distilled images."""
        return len(self.labelled.data.labels)

    @functools.cached_property
    def init_from(self) -> str | None:
        """Fingerprint of the weights that it starts from, 8 hexadecimal digits."""
        directory = self.job.spec.train.init_from
        if not directory:
            return None
        return file_fingerprint(checkpoint.latest_weights(pathlib.Path(directory)))[:8]

    @functools.cached_property
    def recipe(self) -> dict[str, Any]:
        """What it is made from."""
        train = self.job.spec.train
        return {
            "trained_on": self.labelled.fingerprint,
            "evaluated_on": [self.split, self.job.data.fingerprint],
            "student": dataclasses.asdict(self.student),
            "epochs": train.epochs,
            "batch_size": self.batch_size,
            "eval_every": self.evaluate_every,
            "evaluators": {e: registry.code_fingerprint(e) for e in train.evaluators},
            "init_from": self.init_from,
        }

    @functools.cached_property
    def product(self) -> Product:
        """Its directory and recipe."""
        directory = self.job.workdir / _DIRECTORIES[self.split] / self.name
        return Product(directory, self.recipe)

    @property
    def evaluate_every(self) -> int:
        """Epochs between evaluations."""
        train = self.job.spec.train
        return train.epochs if self.split == "validation" else train.evaluate_every

    @property
    def evaluators(self) -> list[evaluators.Evaluator]:
        """Its evaluators, on its outputs for the classes of the real images."""
        measured, teacher = self.job.data.info.num_classes, self.labelled.teacher
        has_more = self.labelled.num_classes > measured
        if has_more and teacher is not None:
            teacher = TeacherOfClasses(teacher, tuple(range(measured)))
        found = [
            self.job.evaluator(name, self.labelled.transform, self.split, teacher)
            for name in self.job.spec.train.evaluators
        ]
        if not has_more:
            return found
        return [evaluators.on_first_outputs(one, measured) for one in found]

    @property
    def soft_labels(self) -> SoftLabels:
        """Logits of every view, and none in epochs with hard labels."""
        soft, hard_epochs = self.labelled.soft_labels, self.job.spec.relabel.hard_epochs
        if not hard_epochs:
            return soft
        return SoftHardSoft(soft, self.job.spec.train.epochs, hard_epochs)

    @property
    def loss(self) -> losses.Loss:
        """Its loss, with another one in epochs without soft labels."""
        relabel, loss = self.job.spec.relabel, self.student.loss.build()
        if not relabel.hard_epochs:
            return loss
        return losses.with_hard_epochs(loss, relabel.loss_of_hard_epochs.build())

    def new_state(self) -> step.TrainState:
        """The student before its first step."""
        student, train = self.student, self.job.spec.train
        info = self.job.data.info
        state = step.new_student(
            student.network.build(
                dataclasses.replace(info, num_classes=self.labelled.num_classes)
            ),
            student.optimizer,
            self.labelled.data,
            epochs=train.epochs,
            batch_size=self.batch_size,
            seed=student.seed,
        )
        if train.init_from and not self._is_begun:
            state = checkpoint.restore_weights(pathlib.Path(train.init_from), state)
        return state

    @property
    def _is_begun(self) -> bool:
        """Whether there is a checkpoint to resume from, instead of a new state."""
        places = self.product.directory.glob(f"{_CHECKPOINTS}/*")
        return hosts.broadcast(any(place.name.isdecimal() for place in places))

    def row(self, record: Record) -> dict[str, Any]:
        """Its row for the results file."""
        student, optimizer = self.student, self.student.optimizer
        row = {
            "run_id": self.product.directory.name,
            "dataset": self.job.data.info.name,
            "dataset_fingerprint": self.job.data.fingerprint,
            "evaluated_on": self.split,
            **self.labelled.columns,
            "student": student.network.label,
            "init_from": self.init_from,
            "code": _code(student.network.code, optimizer.code),
            "protocol": self.job.spec.protocol,
            "protocol_changes": self.job.spec.protocol_changes or None,
            "loss": student.loss.label,
            "loss_code": _code(student.loss.code),
            "optimizer": optimizer.label,
            "learning_rate": optimizer.learning_rate,
            "weight_decay": optimizer.weight_decay,
            "schedule": optimizer.schedule,
            "seed": student.seed,
            "epochs": self.job.spec.train.epochs,
            "batch_size": self.batch_size,
            "eval_every": self.job.spec.train.evaluate_every,
            "top1_last": None,  # where it diverged before it was evaluated
            **{f"{name}_last": value for name, value in record.last.items()},
            "top1_best": record.best.get("top1"),
            "gradient_norm_first": record.gradient_norm_first,
            "train_seconds": record.train_seconds,
            "status": "finished",
            "devices": f"{len(self.devices)} {self.devices[0].platform}",
            "processor": provenance.processor(self.devices[0]),
            "version": provenance.code_version(),
            "jax_version": jax.__version__,
            "config_hash": fingerprint(self.recipe),
        }
        if record.diverged_epoch is not None:
            row["status"] = "diverged"
            row["diverged_epoch"] = record.diverged_epoch
            row["diverged_step"] = record.diverged_step
        return row


def _code(*codes: str | None) -> str | None:
    """Fingerprint of user code, 8 hexadecimal digits; None where there is none."""
    return fingerprint({"code": codes})[:8] if any(codes) else None


def run_students(
    job: Job,
    labelled: LabelledDataset,
    students: Sequence[StudentSpec],
    *,
    split: str = "test",
    train: bool = True,
) -> Iterator[dict[str, Any]]:
    """Trains or resumes students, or finds them finished.

    Args:
      job: The job.
      labelled: What to train on.
      students: Students that differ in seed and learning rate only, so that several can
        train at once.
      split: The split to measure them on, "test" or "validation".
      train: Whether to train those that are not finished.

    Yields:
      Their rows for the results file, as soon as they are known.

    Raises:
      UnfinishedError: a student is not finished, and `train` is false.
    """
    batch_size, devices = _batching(job, len(labelled.data.labels))
    runs = [Run(job, labelled, s, split, batch_size, devices) for s in students]
    at_once = job.spec.train.students_at_once
    for start in range(0, len(runs), at_once):
        some = runs[start : start + at_once]
        unfinished = [run for run in some if not run.product.is_finished()]
        if unfinished and not train:
            raise UnfinishedError(unfinished[0].product.directory)
        _train_together(unfinished)
        for run in some:
            yield run.product.record()


def _batching(job: Job, num_images: int) -> tuple[int, tuple[jax.Device, ...]]:
    """The batch size of a job, and the devices of all hosts to spread it over."""
    batch_size = job.spec.train.batch_size_for(num_images)
    used, available = batches.devices_for(batch_size, job.devices), job.devices
    if len(used) < len(available) * hosts.count():
        _log.warning(
            "a batch of %d is spread over %d of %d devices; a train.batch_size that "
            "divides over all of them is another recipe",
            batch_size,
            len(used),
            len(available) * hosts.count(),
        )
    return batch_size, used


def _train_together(runs: Sequence[Run]) -> None:
    """Trains runs of one shape to the end, several at once."""
    if not runs:
        return
    first, train = runs[0], runs[0].job.spec.train
    with contextlib.ExitStack() as stack:
        journals = [_Journal(run, stack) for run in runs]
        total = train.epochs * first.num_images
        others = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        bar = stack.enter_context(
            progress.ProgressBar(first.name + others, total=total, unit="image")
        )

        def on_start(index: int, record: Record) -> None:
            journals[index].start(record)
            bar.start(record.images(first.num_images, first.batch_size))

        def on_epoch(index: int, record: Record, metrics: dict[str, float]) -> None:
            bar.update(0, **journals[index].write(record, metrics))

        fitted = fit_together(
            [jax.device_get(run.new_state()) for run in runs],
            first.labelled.data,
            first.soft_labels,
            loss=first.loss,
            view_images=first.labelled.view_images,
            epochs=train.epochs,
            batch_size=first.batch_size,
            order_keys=[
                stream_key(run.student.seed, Purpose.STUDENT_ORDER) for run in runs
            ],
            devices=first.devices,
            checkpoints=[journal.checkpoints for journal in journals],
            save_every=train.checkpoint_every or None,
            evaluators=first.evaluators,
            evaluate_every=first.evaluate_every,
            on_start=on_start,
            on_epoch=on_epoch,
            on_batch=bar.update,
        )
        for journal, one in zip(journals, fitted, strict=True):
            journal.finish(one)


class _Journal:
    """Writes what is kept of a run into its directory, which is locked.

    Args:
      run: The run.
      stack: Closes what is opened here.
    """

    def __init__(self, run: Run, stack: contextlib.ExitStack) -> None:
        _log.info("run %s", run.name)
        self._run = run
        self._stack = stack
        self._directory = stack.enter_context(run.product.making(resumable=True))
        self._writer: progress.MetricsWriter | None = None
        self.checkpoints = stack.enter_context(
            checkpoint.Checkpoints(
                self._directory / _CHECKPOINTS,
                keep=run.job.spec.train.keep_checkpoints,
                identity={
                    "network": run.student.network.name,
                    "optimizer": dataclasses.asdict(run.student.optimizer),
                },
            )
        )

    def start(self, record: Record) -> None:
        """Opens the files of metrics at the epoch where the training starts."""
        source = self._run.job.spec.train.init_from
        if source and not record.steps:
            _log.info(
                "started from the weights of %s, with a fresh optimizer state", source
            )
        self._writer = self._stack.enter_context(
            progress.MetricsWriter(
                self._directory, finished_epochs=record.finished_epochs
            )
        )

    def write(self, record: Record, metrics: dict[str, float]) -> dict[str, float]:
        """Writes the metrics of an epoch, with those of an evaluation after it.

        Returns:
          What was written.
        """
        if record.is_evaluated:
            split = self._run.split
            metrics = metrics | {f"{split}_{n}": v for n, v in record.last.items()}
        assert self._writer is not None
        self._writer.write(record.finished_epochs - 1, **metrics)
        return metrics

    def finish(self, fitted: Fitted) -> None:
        """Records the outcome, once the last state is saved."""
        self.checkpoints.wait()
        self._run.product.finish(**self._run.row(fitted.record))
