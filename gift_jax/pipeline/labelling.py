"""The stage between distillation and training: soft labels.

They come from the teacher, stored or online, or were published with the images.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gift_jax.data import preprocess
from gift_jax.distilled import dataset as distilled_lib
from gift_jax.pipeline.products import Product, file_fingerprint, fingerprint
from gift_jax.pipeline.stages import Distilled, Job
from gift_jax.runtime import hosts
from gift_jax.soft_labels import fkd, relabel, storage, views
from gift_jax.soft_labels.codecs import FLOAT16, LabelCodec, get_codec
from gift_jax.soft_labels.store import (
    FixedSoftLabels,
    SoftLabels,
    SoftLabelStore,
    open_store,
)
from gift_jax.specs import settings
from gift_jax.streams import Purpose, stream_key
from gift_jax.teachers import teacher as teacher_lib
from gift_jax.teachers.check import check_on_distilled, least_accuracy

_IMAGES_AT_ONCE = 512


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledDataset:
    """What students are trained on.

    Attributes:
      title: Names distilled dataset, teacher and views in file names.
      transform: What real images must pass to be what a student is fed.
      data: The distilled images.
      view_images: Makes the images of a view.
      soft_labels: Logits of every view.
      fingerprint: Stands for all of it in the recipes of runs.
      facts: What result rows say about it.
    """

    title: str
    transform: preprocess.Preprocess
    data: views.TrainData
    view_images: views.ViewImages
    soft_labels: SoftLabels
    fingerprint: str
    facts: dict[str, Any]


def train_data(
    dataset: distilled_lib.DistilledDataset, seed: int
) -> tuple[views.TrainData, preprocess.Normalization | None]:
    """The arrays of a distilled dataset as a training keeps them on devices.

    Args:
      dataset: The distilled dataset.
      seed: Of the augmented views.

    Returns:
      The arrays, and the normalisation to apply to the images where they are kept
      as 8-bit pixels, a quarter of the memory of floats; else None.
    """
    images, normalization = None, None
    if isinstance(dataset.preprocess, preprocess.Normalization):
        images, normalization = _pixels(dataset.images), dataset.preprocess
    if images is None:
        images, normalization = dataset.inputs(), None
    data = views.TrainData(
        images=jnp.asarray(images),
        labels=jnp.asarray(dataset.labels),
        view_key=stream_key(seed, Purpose.VIEWS),
    )
    return data, normalization


def _pixels(images: np.ndarray) -> np.ndarray | None:
    """As `distilled.as_uint8`, without copies of all images as floats."""
    pixels = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        some = slice(start, start + _IMAGES_AT_ONCE)
        exact = distilled_lib.as_uint8(images[some])
        if exact is None:
            return None
        pixels[some] = exact
    return pixels


def needs_teacher(config: settings.Config) -> bool:
    """Whether the soft labels of a config are made by a teacher here."""
    return config.relabel.source in ("store", "online")


def make_soft_labels(
    job: Job, distilled: Distilled, teacher: teacher_lib.Teacher | None
) -> LabelledDataset:
    """Relabels a distilled dataset, or finds its soft labels.

    Args:
      job: The job.
      distilled: The distilled dataset.
      teacher: None where the labels were published.

    Raises:
      teacher.TeacherError: the teacher does not recognise the distilled images.
      ValueError: published soft labels are asked for, and absent or of others.
    """
    source, dataset = job.config.relabel.source, distilled.dataset
    data, normalization = train_data(dataset, job.config.seed)
    recipe: dict[str, Any] = {"distilled": distilled.fingerprint, "source": source}
    facts: dict[str, Any] = {
        "distill": job.config.distilled.name,
        "ipc": dataset.ipc,
        "distilled_dir": distilled.title,
        "teacher": None,
        "label_format": None,
        "soft_label_bytes": None,
    }
    title = f"{job.config.distilled.name}_ipc{dataset.ipc}"
    labels: SoftLabels
    view_images: views.ViewImages
    if source == "fkd":
        path = pathlib.Path(job.config.relabel.path)
        labels = _fkd_labels(path, dataset)
        recipe["path"] = file_fingerprint(path)
        view_images = views.ReplayedViews(normalization)
    else:
        spec = settings.augment_spec(job.config.augment)
        view_images = views.AugmentedViews(spec, normalization)
        recipe["augment"] = dataclasses.asdict(spec)
        recipe["seed"] = job.config.seed
        recipe["views"] = settings.views(job.config)
        if teacher is None:
            labels = FixedSoftLabels(
                _own_soft_labels(dataset), settings.views(job.config)
            )
        else:
            recipe["teacher"] = teacher.fingerprint
            facts["teacher"] = teacher.name
            facts["teacher_top1"] = teacher.top1
            facts["teacher_top1_distilled"] = check_on_distilled(
                teacher, dataset, min_accuracy=job.config.teacher.min_accuracy
            )
            label_views = relabel.make_label_views(
                teacher,
                data,
                view_images,
                transform=dataset.preprocess,
                devices=_local_devices(job),
            )
            title += f"_{teacher.name}_v{settings.views(job.config)}"
            codec = get_codec(job.config.relabel.format)
            facts["label_format"] = codec.name
            if codec != FLOAT16:
                recipe["format"] = codec.name
                title += f"_{codec.name}"
            if source == "online":
                labels = _online_labels(job, dataset, codec, label_views)
            else:
                labels = _stored_labels(job, title, dataset, recipe, label_views)
                facts["soft_labels_dir"] = title
                facts["soft_label_bytes"] = labels.total_bytes
    if source != "store":
        title += f"_{source}"
    return LabelledDataset(
        title=title,
        transform=dataset.preprocess,
        data=data,
        view_images=view_images,
        soft_labels=labels,
        fingerprint=fingerprint(recipe),
        facts={**facts, "views": labels.views, "soft_labels": source},
    )


def _local_devices(job: Job) -> list[jax.Device]:
    return [d for d in job.devices if d.process_index == hosts.index()]


def _batch_size(job: Job, dataset: distilled_lib.DistilledDataset) -> int:
    batch_size = min(job.config.relabel.batch_size, len(dataset))
    return batch_size + -batch_size % len(_local_devices(job))


def _online_labels(
    job: Job,
    dataset: distilled_lib.DistilledDataset,
    codec: LabelCodec,
    label_views: relabel.LabelViews,
) -> relabel.OnlineSoftLabels:
    return relabel.OnlineSoftLabels(
        label_views,
        len(dataset),
        settings.views(job.config),
        _batch_size(job, dataset),
        codec,
    )


def _stored_labels(
    job: Job,
    title: str,
    dataset: distilled_lib.DistilledDataset,
    recipe: dict[str, Any],
    label_views: relabel.LabelViews,
) -> SoftLabelStore:
    product = Product(job.workdir / "soft_labels" / title, recipe)
    facts = {
        "views": settings.views(job.config),
        "images": len(dataset),
        "classes": dataset.metadata.num_classes,
        "format": job.config.relabel.format,
        "store": _place_elsewhere(job.config, title, product),
    }
    open_store = functools.partial(_open_store, product.directory, facts)
    # A finished store lacks chunks where damaged ones were deleted, or where
    # `relabel.store` is another place than before.
    with product.making_if_absent(
        resumable=True, is_whole=lambda: not open_store().missing_chunks()
    ) as directory:
        if directory:
            batch_size = _batch_size(job, dataset)
            relabel.relabel(open_store(), label_views, batch_size=batch_size)
            product.finish(**facts)
    return open_store()


def _place_elsewhere(config: settings.Config, title: str, product: Product) -> str:
    """Where the array lies if not in the product's directory, or "".

    Work directories can share `relabel.store`, so the place is named by the recipe:
    what lies there was made by it.
    """
    base = config.relabel.store
    return storage.join(base, f"{title}-{product.fingerprint}") if base else ""


def _open_store(directory: pathlib.Path, facts: Mapping[str, Any]) -> SoftLabelStore:
    return open_store(
        facts["store"] or directory / "logits",
        views=facts["views"],
        num_images=facts["images"],
        num_classes=facts["classes"],
        codec=get_codec(facts["format"]),
    )


def open_labels(directory: pathlib.Path) -> SoftLabelStore:
    """Opens the soft labels of a finished product, wherever their array lies.

    Args:
      directory: Of the product, `soft_labels/NAME` of a work directory.

    Raises:
      WorkdirError: the product is not finished.
      StorageError: the array cannot be reached.
    """
    return _open_store(directory, Product(directory, {}).facts())


def check_storage(config: settings.Config, num_classes: int) -> None:
    """Refuses what soft labels cannot be stored as, or where, before any work.

    Args:
      config: One teacher, one distilled dataset.
      num_classes: C of the real dataset.

    Raises:
      ValueError: `relabel.format` is unknown or not for so many classes, or
        `relabel.store` is no place to store at.
      StorageError: the cloud does not answer, or refuses.
    """
    section = config.relabel
    get_codec(section.format).row_bytes(num_classes)
    if section.store and section.source == "store":
        storage.check_reachable(section.store)


def _own_soft_labels(dataset: distilled_lib.DistilledDataset) -> Any:
    if dataset.soft_labels is None:
        raise ValueError(
            "relabel.source is 'dataset', but the distilled dataset has no soft labels "
            "of its own; set it to 'store' to have a teacher make them"
        )
    return dataset.soft_labels


def _fkd_labels(
    path: pathlib.Path, dataset: distilled_lib.DistilledDataset
) -> fkd.FkdLabels:
    labels = fkd.FkdLabels(path)
    first = labels.read(0)
    if first.logits.shape != (len(dataset), dataset.metadata.num_classes):
        raise ValueError(
            f"the labels in {path} are those of (images, classes) = "
            f"{first.logits.shape}, the distilled dataset has "
            f"{(len(dataset), dataset.metadata.num_classes)}: read it with the same IPC"
        )
    agreement = 100 * first.agreement(dataset.labels)
    least = least_accuracy(dataset.metadata.num_classes)
    if agreement < least:
        raise teacher_lib.TeacherError(
            f"the labels in {path} name a class that is in the picture for "
            f"{agreement:.1f}% of the images, expected at least {least:.1f}%: they are "
            "in the order of another sampler, or of other images"
        )
    return labels
