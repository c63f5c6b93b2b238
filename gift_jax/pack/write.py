"""A pack: teacher, distilled dataset, test split, and the flags to use them."""

import dataclasses
import pathlib

from ml_collections.config_dict import ConfigDict

from gift_jax import registry
from gift_jax.data import archive, info
from gift_jax.data.preprocess import Normalization, Preprocess
from gift_jax.distilled import DistilledDataset, save_distilled
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import make_distilled_and_teacher
from gift_jax.pipeline.grid import Grid, Shard
from gift_jax.runtime import atomic
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import FlaxTeacher, Teacher, TransformedTeacher
from gift_jax.torch_io import save_torch, torch_import

FLAGS_FILE = "config.flags"


def pack(config: ConfigDict, workdir: pathlib.Path, out: pathlib.Path) -> None:
    """Makes what a config's students are trained on, and writes it to a folder.

    Args:
      config: A config of one teacher and one distilled dataset; see configs/common.py.
        With `tuning.enabled` the pack has train images that neither has seen, and
        learning rates can be tuned on it; otherwise tuning is refused.
      workdir: Work directory where these are made, or found.
      out: The folder; it appears only when it is complete. The paths in its flags are
        relative to the folder that holds it.

    Raises:
      FileExistsError: there is something at `out`.
      InputError: there are several teachers or distilled datasets, the teacher's
        weights are not here, teachers are retrained or labels read from
        `relabel.path`, or the config is wrong in another way.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists already; delete it or choose another")
    setups = Grid(config, workdir, Shard()).setups
    specs = [setup.job.spec for setup in setups]
    if len({(s.dataset, s.teacher, s.distilled, s.seed) for s in specs}) > 1:
        raise InputError(
            "the config asks for several real datasets, teachers, distilled datasets "
            "or seeds: name one of each, and make a pack for every other"
        )
    if any(spec.is_retrained for spec in specs):
        raise InputError(
            "continual.teachers asks for teachers that are trained at every step, on "
            "all real images, which are not packed: train them here, or leave out "
            "'retrained'"
        )
    if paths := sorted({spec.relabel.path for spec in specs} - {""}):
        raise InputError(
            f"relabel.path is {', '.join(paths)}, labels that are not packed: train on "
            "them here"
        )
    job = setups[0].job
    distilled, teacher = make_distilled_and_teacher(job)
    name, held_out = job.data.info.name, job.data.validation
    is_known = name in info.DATASETS
    real = f"{out.name}/real.npz"
    values = {
        "dataset.name": name if is_known else f"npz:{real}",
        "dataset.data_dir": real if is_known else "",
        "dataset.image_size": job.data.info.image_size,
        "dataset.train_split": "",
        "dataset.test_split": "",
        **_statistics("dataset", job.data.info.normalization),
        "distilled.name": job.spec.distilled.name,
        "distilled.ipc": job.spec.distilled.ipc,
        "distilled.path": f"{out.name}/distilled",
        "distilled.source": "",
        # One is left as the train split, which no student sees. Where none were held
        # out, the teacher and the distiller have seen all images: none is for tuning.
        "tuning.validation_images": len(held_out) - 1 if held_out else 0,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(out) as folder:
        folder.mkdir()
        _write_real(job, folder / "real.npz")
        save_distilled(
            _named(distilled.dataset, str(values["dataset.name"])), folder / "distilled"
        )
        if teacher is not None:
            values |= _write_teacher(teacher.teacher, job, folder / "teacher.pth")
            values["teacher.checkpoint"] = f"{out.name}/teacher.pth"
        elif len(sources := {spec.relabel.source for spec in specs}) == 1:
            # Another source would train a teacher, on the few real images of the pack.
            values["relabel.source"] = sources.pop()
        lines = [f"--config.{field}={value}\n" for field, value in values.items()]
        (folder / FLAGS_FILE).write_text("".join(lines))


def _write_real(job: Job, path: pathlib.Path) -> None:
    data, name = job.data, job.data.info.name
    train, test = "train", "test"
    if name in info.DATASETS:
        known = info.dataset_info(name)
        train, test = known.train_split, known.test_split
    splits = {train: data.calibration, test: data.test}
    archive.write(path, splits, data.class_names)


def _named(dataset: DistilledDataset, name: str) -> DistilledDataset:
    metadata = dataclasses.replace(dataset.metadata, dataset=name)
    return dataclasses.replace(dataset, metadata=metadata, are_pixels=True)


def _write_teacher(teacher: Teacher, job: Job, path: pathlib.Path) -> dict[str, object]:
    """Writes a PyTorch state dict; returns the config fields to read it by."""
    spec = job.spec.teacher
    network = spec.network
    if isinstance(teacher, TransformedTeacher):
        teacher = teacher.teacher
    if not isinstance(teacher, FlaxTeacher) or network is None or spec.also:
        raise InputError(
            f"the teacher {spec.label} is not one network of this project, whose "
            "weights could be packed: train on the labels that it made here"
        )
    state = torch_import.export_torch(
        teacher.variables,
        model=network.name,
        num_classes=job.data.info.num_classes,
        image_size=spec.transform.side(job.data.info.image_size),
        **dict(network.options),
    )
    save_torch(path, {"model": state})
    transform = {name: getattr(spec, name) for name in ("resize", "crop")}
    return {
        # All options, as the config that the flags follow may have others.
        "teacher.name": registry.label(network.name, dict(network.options)),
        "teacher.dtype": network.dtype,
        "teacher.label_noise": 0.0,
        **_statistics("teacher", teacher.preprocess),
        **{f"teacher.{name}": side for name, side in transform.items() if side},
        "teacher.transform_views": spec.transform_views,
    }


def _statistics(section: str, transform: Preprocess) -> dict[str, object]:
    if not isinstance(transform, Normalization):
        raise InputError(f"{section} images pass {transform}, which no flag can say")
    return {f"{section}.mean": transform.mean, f"{section}.std": transform.std}
