"""The distilled dataset of a job: what it is named by, and what its making shares."""

import dataclasses
import shutil
from typing import ClassVar
from unittest import mock

import jax
import numpy as np
import pytest

from gift_jax import distill, models, specs
from gift_jax.configs import common
from gift_jax.data import real
from gift_jax.distill.matching import dm
from gift_jax.distill.matching import experts as experts_lib
from gift_jax.distill.matching.experts import Experts
from gift_jax.distilled import DistilledDataset, Metadata
from gift_jax.pipeline import distilled as distilled_stage
from gift_jax.pipeline import statistics
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import make_distilled
from gift_jax.pipeline.job import run_job
from gift_jax.pipeline.products import WorkdirError
from gift_jax.pipeline.teacher import make_teacher
from gift_jax.runtime import preemption
from gift_jax.runtime.errors import InputError


def random_job(workdir):
    config = common.get_config("digits")
    config.distilled.name = "random"
    (spec,) = specs.expand(config)
    return Job(spec, workdir, real.load_dataset("digits"), tuple(jax.devices()[:1]))


@pytest.mark.slow
def test_teachers_share_their_statistics_among_distillers(tmp_path, monkeypatch):
    config = common.get_config("digits")
    config.teacher.update(name="conv1", width=4, also=("conv1-width=3",), epochs=1)
    config.distilled.update(name="gvbsm+edc", ipc=1)
    config.distilled.gvbsm.iterations = config.distilled.edc.iterations = 2
    digits = real.load_dataset("digits")
    made = []
    for spec in specs.expand(config):
        job = Job(spec, tmp_path, digits, tuple(jax.devices()[:1]))
        teacher = make_teacher(job).teacher
        made.append(make_distilled(job, teacher))
        monkeypatch.setattr(statistics.real_statistics, "measure", None)
    assert [m.name for m in made] == [
        f"{name}_ipc1_conv1-width=4+conv1-width=3" for name in ("gvbsm", "edc")
    ]
    names = {p.name for p in (tmp_path / "statistics").iterdir() if p.is_dir()}
    assert names == {"conv1-width=4", "conv1-width=3"}


def test_every_ipc_has_the_same_experts(tmp_path, monkeypatch):
    model = models.create_model(
        "conv1", num_classes=10, image_size=8, width=8, norm="instance"
    )
    monkeypatch.setattr(Experts, "network", lambda self, info: model)
    monkeypatch.setattr(dm, "augment", lambda key, images, **_: images)
    config = common.get_config("digits")
    config.distilled.name = "datm"
    options = {"experts": 1, "epochs": 15, "start_epochs": (0, 1, 1), "lr_teacher": 2.0}
    config.distilled.datm.update(iterations=1, syn_steps=1, zca=False, **options)
    config.variants = ("ipc=1", "ipc=2")
    digits = real.load_dataset("digits")
    jobs = [
        Job(spec, tmp_path, digits, tuple(jax.devices()[:1]))
        for spec in specs.expand(config)
    ]
    stop = mock.Mock(side_effect=preemption.PreemptedError)
    with monkeypatch.context() as patch:
        patch.setattr(experts_lib, "fit", stop)
        with pytest.raises(preemption.PreemptedError):
            make_distilled(jobs[0], None)
    (kept,) = (p for p in (tmp_path / "experts").iterdir() if p.is_dir())
    assert (kept / "expert_000.f32").exists()  # of the first row
    made = [make_distilled(jobs[0], None)]
    with monkeypatch.context() as patch:
        patch.setattr(Experts, "train", None)
        made.append(make_distilled(jobs[1], None))
    assert [m.dataset.ipc for m in made] == [1, 2]
    with (kept / "expert_000.f32").open("r+b") as file:
        file.write(b"damaged")
    shutil.rmtree(tmp_path / "distilled")
    with pytest.raises(WorkdirError, match="is damaged"):
        make_distilled(jobs[1], None)


def test_a_distilled_dataset_is_not_named_by_another_ipc(tmp_path, monkeypatch):
    job = random_job(tmp_path)
    images = np.full((20, 8, 8, 1), 0.5, np.float32)
    metadata = Metadata("digits", 10, "mine", "test")
    made = DistilledDataset(
        images, np.arange(20) % 10, metadata, job.data.info.normalization
    )
    monkeypatch.setattr(distilled_stage, "_new_distilled", lambda *_: made)
    with pytest.raises(InputError, match=r"holds 2 images of a class, but .*ipc is 10"):
        make_distilled(job, None)
    assert not (tmp_path / "distilled/random_ipc10").exists()


@dataclasses.dataclass(frozen=True)
class InParts:
    """Goes on where it was."""

    needs: ClassVar[frozenset[str]] = frozenset({"train_images"})
    resumable: ClassVar[bool] = True
    ipc: int

    def make(self, data, *, teacher, seed, on_progress, directory):
        directory.mkdir(exist_ok=True)
        for part in range(len(list(directory.iterdir())), 3):
            (directory / str(part)).touch()
            on_progress(part + 1, 3, loss=0.5)
        return distill.Random(self.ipc).make(data, seed=seed)


def test_what_a_stopped_distiller_kept_is_there_until_it_is_done(tmp_path, monkeypatch):
    job = random_job(tmp_path)
    distilled = dataclasses.replace(job.spec.distilled, distiller=InParts(10))
    job = job.with_spec(dataclasses.replace(job.spec, distilled=distilled))
    kept = tmp_path / "distilled/random_ipc10/unfinished"
    monkeypatch.setattr(preemption, "requested", lambda: True)
    for parts in (1, 2):
        with pytest.raises(preemption.PreemptedError):
            make_distilled(job, None)
        assert len(list(kept.iterdir())) == parts
    made = make_distilled(job, None)  # all that was asked for, so not stopped
    assert made.dataset.ipc == 10 and not kept.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher.name": "my:teacher"}, "needs gradients .*'my:teacher'"),
        ({"teacher.name": "conv1", "teacher.norm": "none"}, "has none: give it batch"),
        ({"teacher.crop": 8, "teacher.transform_views": True}, "as its network sees"),
    ],
)
def test_teachers_without_gradients_or_statistics_are_refused_before_work(
    fields, message, tmp_path
):
    config = common.get_config("digits")
    config.distilled.name = "sre2l"
    for field, value in fields.items():
        setattr(config.teacher, field.partition(".")[2], value)
    with pytest.raises(InputError, match=message):
        run_job(config, tmp_path)
    assert not (tmp_path / "teacher").exists()
