"""Relabelling: the teacher's logits of every view, computed once and stored.

A view is a pure function of (key, view number, image number), so nothing but
the logits is stored: a student regenerates the very image that the teacher saw.
With as many views as a student trains epochs this is the protocol of the
official code, whose teacher runs on every augmented batch.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gift_jax.augment import AugmentSpec
from gift_jax.data import preprocess
from gift_jax.distilled import DistilledDataset
from gift_jax.runtime import hosts, preemption
from gift_jax.runtime.devices import mapped, replicate
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.progress import ProgressBar
from gift_jax.runtime.units import readable_size, readable_time
from gift_jax.soft_labels import storage
from gift_jax.soft_labels import views as views_lib
from gift_jax.soft_labels.base import LabelViews, label_in_batches
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.soft_labels.online import OnlineSoftLabels
from gift_jax.soft_labels.store import SoftLabelStore
from gift_jax.teachers import Teacher, is_traced

_log = logging.getLogger(__name__)

_BATCH_SIZE = 250


def make_label_views(
    teacher: Teacher,
    data: views_lib.TrainData,
    view_images: views_lib.AugmentedViews,
    *,
    transform: preprocess.Preprocess,
    devices: Sequence[jax.Device],
) -> LabelViews:
    """Compiles the teacher on augmented views.

    Args:
      teacher: The teacher. Views are made and labelled in one program if it is a
        `TracedTeacher`; any other is given their pixels.
      data: The whole distilled set.
      view_images: Makes the images of the views.
      transform: The student's preprocessing.
      devices: Local devices to spread a batch over; views for a teacher that is not
        traced are made on the first.

    Returns:
      `label_views(view, indices)` -> (len(indices), num_classes) float32; the
      number of indices must divide over the devices.
    """
    if not is_traced(teacher):
        data = jax.device_put(data, devices[0])

        @jax.jit
        def pixels(data: views_lib.TrainData, number: Any, indices: Any) -> jax.Array:
            return transform.invert(view_images.images(data, number, indices))

        def label_pixels(view: int, indices: np.ndarray) -> np.ndarray:
            images = pixels(data, np.int32(view), indices.astype(np.int32))
            return np.asarray(teacher.logits(images))

        return label_pixels

    def answer(
        variables: Any, data: views_lib.TrainData, number: Any, indices: Any
    ) -> jax.Array:
        images = view_images.images(data, number, indices)
        return teacher.apply(variables, images, transform)

    program = mapped(answer, in_axes=(None, None, None, 0), devices=devices)
    variables, data = replicate((teacher.variables, data), devices)

    def label_views(view: int, indices: np.ndarray) -> jax.Array:
        per_device = indices.reshape(len(devices), -1).astype(np.int32)
        answers = program(variables, data, np.int32(view), per_device)
        return answers.reshape(len(indices), *answers.shape[2:])

    return label_views


def relabel_views(
    teacher: Teacher,
    dataset: DistilledDataset,
    *,
    augment: AugmentSpec,
    views: int,
    seed: int,
    batch_size: int = _BATCH_SIZE,
) -> FixedSoftLabels:
    """Labels every view and keeps the labels in memory, for a notebook.

    Args:
      teacher: The teacher.
      dataset: The distilled dataset.
      augment: Augmentation of the views.
      views: Number of views of every image.
      seed: Seed of the views, see `views.train_data`.
      batch_size: Images in a forward pass.

    Returns:
      Logits as they would be stored, in float16.

    Raises:
      InputError: the teacher's logits hold NaN or overflow float16, or there are no
        views or images in a forward pass.

    >>> from gift_jax.data.real import load_dataset
    >>> from gift_jax.distill import make_distiller
    >>> from gift_jax.teachers import CallableTeacher
    >>> digits = load_dataset("digits")
    >>> random = make_distiller("random", ipc=1).make(digits, teacher=None, seed=0)
    >>> by_rows = lambda images: images.sum(axis=(2, 3)) @ np.eye(8, 10)
    >>> teacher = CallableTeacher("by rows", by_rows, digits.info.image_shape, 10)
    >>> augment = AugmentSpec(diffaug="crop")
    >>> labels = relabel_views(teacher, random, augment=augment, views=2, seed=0)
    >>> labels.logits.shape  # views, images, classes
    (2, 10, 10)
    """
    for name, value in (("views", views), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1")
    data, normalization = views_lib.train_data(dataset, seed)
    label_views = make_label_views(
        teacher,
        data,
        views_lib.AugmentedViews(augment, normalization),
        transform=dataset.preprocess,
        devices=jax.local_devices()[:1],
    )
    batch_size = min(batch_size, len(dataset))
    labels = OnlineSoftLabels(label_views, len(dataset), views, batch_size)
    logits = [np.asarray(labels.start_reading(view)().logits) for view in range(views)]
    return FixedSoftLabels(np.stack(logits), views)


def relabel(store: SoftLabelStore, label_views: LabelViews, *, batch_size: int) -> None:
    """Writes the chunks that the store lacks; every host writes a part of them.

    A chunk is labelled while the one before is written; only these two are in memory.

    Args:
      store: Store to write to; complete when this returns.
      label_views: From `make_label_views`, on devices of this host.
      batch_size: Images in a forward pass over all devices.

    Raises:
      InputError: the teacher's logits hold NaN or overflow float16, or the disk is
        too small for the store.
      StorageError: the store cannot be written.
      PreemptedError: the job was asked to stop; what is written stays.
    """
    missing = store.missing_chunks()
    if hosts.is_primary():
        _check_space(store, len(missing))
    own = [
        (view, start, stop)
        for view, start, stop in missing
        if store.chunk_number(view, start) % hosts.count() == hosts.index()
    ]
    total = store.views * store.num_images
    done = total - sum(stop - start for _, start, stop in missing)
    to_do = sum(stop - start for _, start, stop in own)
    with ProgressBar("relabel", total=done + to_do, unit="image", done=done) as bar:
        _write_chunks(store, label_views, own, batch_size, bar)
    hosts.barrier("soft labels")
    if hosts.broadcast(hosts.is_primary() and _lacks_chunks(store)):
        raise preemption.PreemptedError


def _write_chunks(
    store: SoftLabelStore,
    label_views: LabelViews,
    chunks: list[tuple[int, int, int]],
    batch_size: int,
    bar: ProgressBar,
) -> None:
    finish_writing: Callable[[], None] | None = None
    try:
        for number, (view, start, stop) in enumerate(chunks):
            if preemption.requested():
                return
            began = time.monotonic()
            rows = np.arange(start, stop)
            logits = label_in_batches(label_views, view, rows, batch_size)
            if finish_writing is not None:
                finish_writing()
            finish_writing = store.start_writing(view, start, logits)
            bar.update(len(rows))
            if number == 1 and len(chunks) > 2:  # the first compiles
                seconds = (time.monotonic() - began) * (len(chunks) - 2)
                _log.info("relabelling takes about %s more", readable_time(seconds))
    finally:
        if finish_writing is not None:
            finish_writing()


def _check_space(store: SoftLabelStore, missing_chunks: int) -> None:
    """Says how large the store will be; raises InputError if the disk is too small."""
    missing = missing_chunks * store.chunk_bytes
    form = (
        f"{store.num_images:,} images x {store.num_classes:,} classes x "
        f"{store.views:,} views in {store.codec.name}"
    )
    _log.info(
        "soft labels: %s (%s), of which %s are to be made, in %s",
        readable_size(store.total_bytes),
        form,
        readable_size(missing),
        store.location,
    )
    free = storage.free_bytes(store.location)
    if free is not None and free < missing:
        raise InputError(
            f"the soft labels need {readable_size(missing)} more ({form}), but "
            f"{store.location} has {readable_size(free)} free: make room, or "
            "set relabel.format to int8 or top10, relabel.views to fewer views, or "
            "relabel.store to another disk or a cloud"
        )


def _lacks_chunks(store: SoftLabelStore) -> bool:
    """Whether chunks are missing because a host was asked to stop."""

    def look() -> bool | None:
        if not store.missing_chunks():
            return False
        return True if preemption.requested() else None

    lacks = hosts.seen(look)
    if lacks is None:
        raise storage.StorageError(
            f"{len(store.missing_chunks())} chunks that all hosts have written are not "
            f"seen in {store.location}: it must be a place that all hosts share"
        )
    return lacks
