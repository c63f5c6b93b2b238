"""The stage between distillation and training: soft labels.

They come from the teacher, stored or online, or were published with the images.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gift_jax.augment import AugmentSpec
from gift_jax.data import preprocess
from gift_jax.distilled import DistilledDataset
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import JobDistilled
from gift_jax.pipeline.products import (
    Product,
    WorkdirError,
    file_fingerprint,
    make_directory,
)
from gift_jax.pipeline.teacher import JobTeacher
from gift_jax.runtime.checksums import fingerprint
from gift_jax.runtime.devices import padded_batches
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import codecs, fkd, relabel, storage, store, views
from gift_jax.soft_labels.base import SoftLabels
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.soft_labels.hard import HardLabels
from gift_jax.soft_labels.online import OnlineSoftLabels
from gift_jax.soft_labels.views import train_data
from gift_jax.specs import RelabelSpec
from gift_jax.teachers import Teacher, TeacherError, check

# Recipe of the one view of fixed labels: the images as they are.
_ONE_VIEW = {"augment": AugmentSpec().recipe, "seed": 0, "views": 1}


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledDataset:
    """What students are trained on.

    Attributes:
      name: Part of the names of runs: distilled dataset, teacher and views.
      transform: Preprocessing of real images to a student's inputs.
      data: The distilled images.
      view_images: Makes the images of a view.
      soft_labels: Logits of every view.
      teacher: Teacher of whole images, as it is evaluated; None where no teacher labels
        the images here.
      num_classes: Classes of the soft labels; a student has an output for each.
      fingerprint: Fingerprint of all that students are trained on.
      columns: Columns about it in rows of results.
    """

    name: str
    transform: preprocess.Preprocess
    data: views.TrainData
    view_images: views.ViewImages
    soft_labels: SoftLabels
    teacher: Teacher | None
    num_classes: int
    fingerprint: str
    columns: dict[str, Any]


def make_soft_labels(
    job: Job, distilled: JobDistilled, teacher: JobTeacher | None
) -> LabelledDataset:
    """Relabels a distilled dataset, or finds its soft labels.

    Args:
      job: The job.
      distilled: The distilled dataset.
      teacher: None where none is needed; not used if it only made the images.

    Raises:
      TeacherError: the teacher does not recognise the distilled images.
      InputError: published soft labels are requested, but absent or of other images.
    """
    spec, dataset = job.spec.relabel, distilled.dataset
    if not spec.needs_teacher:
        teacher = None
    data, normalization = train_data(dataset, job.spec.seed)
    label_mix = spec.label_mix(job.spec.augment)
    augmented = views.AugmentedViews(job.spec.augment, normalization, label_mix)
    view_images: views.ViewImages = augmented
    if spec.source == "fkd":
        view_images = views.ReplayedViews(normalization, label_mix)
    named = _named(job, distilled, teacher)
    columns: dict[str, Any] = {
        "distill": job.spec.distilled.name,
        "ipc": dataset.ipc,
        "distilled_dir": distilled.name,
        "distilled_fingerprint": dataset.fingerprint,
        "data_seed": job.spec.seed,
        "augment": job.spec.augment.label if view_images is augmented else None,
        "teacher": None,
        "teacher_fingerprint": None,
        "label_format": None,
        "soft_label_bytes": None,
    }
    labels: SoftLabels
    if teacher is not None:
        columns |= {
            "teacher": teacher.teacher.name,
            "teacher_fingerprint": teacher.evaluated.fingerprint,
            "teacher_top1": teacher.top1,
            "teacher_top1_distilled": check.check_on_distilled(
                teacher.evaluated, dataset, min_accuracy=job.spec.teacher.min_accuracy
            ),
            "label_format": spec.codec.name,
        }
        labels = _labels_by(
            teacher.teacher, job, named.product, dataset, data, augmented
        )
    elif spec.source == "fkd":
        labels = _fkd_labels(pathlib.Path(spec.path), dataset)
    elif spec.source == "hard":
        labels = HardLabels(job.spec.views)
    else:
        labels = FixedSoftLabels(_own_soft_labels(dataset), job.spec.views)
    if isinstance(labels, store.SoftLabelStore):
        columns["soft_labels_dir"] = named.product.directory.name
        columns["soft_label_bytes"] = labels.total_bytes
        if spec.source == "fixed":
            labels = FixedSoftLabels(labels.read(0), job.spec.views)
    return LabelledDataset(
        name=named.name,
        transform=dataset.preprocess,
        data=data,
        view_images=view_images,
        soft_labels=labels,
        teacher=teacher.evaluated if teacher else None,
        num_classes=dataset.metadata.num_classes,
        fingerprint=named.trained_on,
        columns={
            **columns,
            "views": labels.views,
            "soft_labels": spec.label,
            "trained_on": named.trained_on,
        },
    )


class _Named(NamedTuple):
    """Names of soft labels and of what is trained on them, and a fingerprint.

    Attributes:
      product: Product of labels that are stored.
      name: Part of the names of runs.
      trained_on: Fingerprint of all that students are trained on.
    """

    product: Product
    name: str
    trained_on: str


def _named(job: Job, distilled: JobDistilled, teacher: JobTeacher | None) -> _Named:
    spec, dataset = job.spec.relabel, distilled.dataset
    recipe: dict[str, Any] = {"distilled": dataset.fingerprint, "source": spec.source}
    name, form = distilled.name, ""
    number = f"_v{job.spec.views}" if teacher is not None or spec.views else ""
    if teacher is not None:
        recipe["teacher"] = teacher.teacher.fingerprint
        name = f"{job.spec.distilled.name}_ipc{dataset.ipc}_{teacher.teacher.name}"
        if spec.codec != codecs.FLOAT16:
            recipe["format"] = spec.codec.name
            form = f"_{spec.codec.name}"
    if spec.source != "store":
        form += f"_{spec.source}"
    of_views: dict[str, Any] = {
        "augment": job.spec.augment.recipe,
        "seed": job.spec.seed,
        "views": job.spec.views,
    }
    if spec.source == "fkd":
        of_views = {"path": file_fingerprint(pathlib.Path(spec.path))}
    of_labels = recipe | of_views
    stored = name + number + form
    if spec.source == "fixed":  # one product, whatever the views
        of_labels, stored = recipe | _ONE_VIEW, name + form
    # How students use hard labels does not change the soft ones.
    of_training = recipe | of_views
    label_mix = spec.label_mix(job.spec.augment)
    if label_mix != "none":
        of_training["label_mix"] = label_mix
    if spec.hard_epochs:
        loss = dataclasses.asdict(spec.loss_of_hard_epochs)
        of_training |= {"hard_epochs": spec.hard_epochs, "hard_loss": loss}

    def tagged(text: str) -> str:
        return job.spec.tagged(text, "distilled", "soft_labels")

    of_hard = spec.label.removeprefix(spec.source).replace("-", "_")
    return _Named(
        Product(job.workdir / "soft_labels" / tagged(stored), of_labels),
        tagged(name + number + form) + of_hard,
        fingerprint(of_training),
    )


def _labels_by(
    teacher: Teacher,
    job: Job,
    product: Product,
    dataset: DistilledDataset,
    data: views.TrainData,
    view_images: views.AugmentedViews,
) -> SoftLabels:
    """Labels of a teacher: made online, or stored in the product.

    Fixed labels are one view, of the images as they are.
    """
    spec = job.spec.relabel
    if spec.source == "fixed":
        view_images = dataclasses.replace(view_images, spec=AugmentSpec())
    label_views = relabel.make_label_views(
        teacher, data, view_images, transform=dataset.preprocess, devices=job.devices
    )
    _, per_device = padded_batches(
        len(dataset), spec.batch_size, local_devices=len(job.devices)
    )
    batch_size = per_device * len(job.devices)
    if spec.source == "online":
        return OnlineSoftLabels(
            label_views, len(dataset), job.spec.views, batch_size, spec.codec
        )
    record = {
        "views": job.spec.labelled_views,
        "images": len(dataset),
        "classes": dataset.metadata.num_classes,
        "format": spec.codec.name,
        "store": _place_elsewhere(spec, product),
    }
    open_store = functools.partial(_open_store, product.directory, record)
    # A finished store lacks chunks where damaged ones were deleted, or where
    # `relabel.store` is another place than before.
    with product.making_if_absent(
        resumable=True, is_whole=lambda: not open_store().missing_chunks()
    ) as directory:
        if directory:
            relabel.relabel(open_store(), label_views, batch_size=batch_size)
            product.finish(**record)
    return open_store()


def _place_elsewhere(spec: RelabelSpec, product: Product) -> str:
    """Location of the array if it is not in the product's directory, or "".

    Work directories can share `relabel.store`, so the location is named by the recipe:
    what is there was made by it.
    """
    if not spec.store:
        return ""
    name = f"{product.directory.name}-{product.fingerprint}"
    return storage.join(spec.store, name)


def _open_store(
    directory: pathlib.Path, record: Mapping[str, Any], *, create: bool = True
) -> store.SoftLabelStore:
    return store.open_store(
        record["store"] or directory / "logits",
        views=record["views"],
        num_images=record["images"],
        num_classes=record["classes"],
        codec=codecs.get_codec(record["format"]),
        create=create,
    )


def open_labels(directory: pathlib.Path) -> store.SoftLabelStore:
    """Opens the soft labels of a finished product, wherever their array is.

    Args:
      directory: Directory of the product, `soft_labels/NAME` of a work directory.

    Raises:
      WorkdirError: the product is not finished.
      StorageError: the array cannot be reached, or is not there.
    """
    return _open_store(directory, Product(directory, {}).record(), create=False)


def check_storage(spec: RelabelSpec, num_classes: int) -> None:
    """Checks the format and the location of soft labels before any work.

    Args:
      spec: Format and location.
      num_classes: C of the real dataset.

    Raises:
      InputError: `relabel.format` does not support so many classes, or nothing can be
        stored at `relabel.store`.
      StorageError: the cloud does not answer, or refuses.
    """
    spec.codec.row_bytes(num_classes)
    if spec.store and spec.is_stored:
        storage.check_reachable(spec.store)
        if not storage.is_remote(spec.store):
            _check_writable(pathlib.Path(spec.store).expanduser())


def _check_writable(path: pathlib.Path) -> None:
    try:
        make_directory(path)
    except WorkdirError as error:
        reason = getattr(error.__cause__, "strerror", error)
        raise InputError(
            f"relabel.store is {path}, which cannot be written to: {reason}"
        ) from error


def _own_soft_labels(dataset: DistilledDataset) -> np.ndarray:
    if dataset.soft_labels is None:
        raise InputError(
            "relabel.source is 'dataset', but the distilled dataset has no soft labels "
            "of its own; set it to 'store' to have a teacher make them"
        )
    return dataset.soft_labels


def _fkd_labels(path: pathlib.Path, dataset: DistilledDataset) -> fkd.FkdLabels:
    labels = fkd.FkdLabels(path)
    first = labels.read(0)
    if first.logits.shape != (len(dataset), dataset.metadata.num_classes):
        raise InputError(
            f"the labels in {path} are those of (images, classes) = "
            f"{first.logits.shape}, the distilled dataset has "
            f"{(len(dataset), dataset.metadata.num_classes)}: read it with the same IPC"
        )
    agreement = 100 * first.agreement(dataset.labels)
    least = check.least_accuracy(dataset.metadata.num_classes)
    if agreement < least:
        raise TeacherError(
            f"the labels in {path} name a class that is in the picture for "
            f"{agreement:.1f}% of the images, expected at least {least:.1f}%: they are "
            "in the order of another sampler, or of other images"
        )
    return labels
