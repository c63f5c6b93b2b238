"""The distilled dataset of a job: what it is named by, and what its making shares."""

import contextlib
import dataclasses
import re
import shutil
import signal
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
from gift_jax.distilled import DistilledDataset, Metadata, load_distilled
from gift_jax.pipeline import distilled as distilled_stage
from gift_jax.pipeline import statistics
from gift_jax.pipeline.context import Job
from gift_jax.pipeline.distilled import make_distilled
from gift_jax.pipeline.job import run_job
from gift_jax.pipeline.products import WorkdirError
from gift_jax.pipeline.teacher import make_teacher
from gift_jax.runtime import preemption
from gift_jax.runtime.errors import InputError
from gift_jax.specs.options import with_options
from gift_jax.torch_io import save_torch
from tests import launch
from tests.pipeline import recovering


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


@pytest.mark.slow
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


def test_a_damaged_distilled_dataset_says_what_helps(tmp_path):
    job = random_job(tmp_path)
    make_distilled(job, None)
    file = tmp_path / "distilled/random_ipc10/distilled.npz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WorkdirError, match=r"random_ipc10 is damaged: .*delete it to"):
        make_distilled(job, None)


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


# --- Several hosts ------------------------------------------------------------------


def recovery_of(ipc, iterations):
    """The config of as many batches as images a class, and what gives it to others."""
    options = {"iterations": iterations, "batch_size": 10}
    config = common.get_config("digits")
    config.distilled.update(name="sre2l", ipc=ipc)
    config.distilled.sre2l.update(options)
    fields = {"name": "sre2l", "ipc": ipc}
    fields |= {f"sre2l.{name}": value for name, value in options.items()}
    given = [f"--config.distilled.{name}={value}" for name, value in fields.items()]
    return config, ("--config=configs/digits.py", *given)


def kept_by(job):
    """The batches that each of the processes has kept."""
    numbers = range(len(job.processes))
    return [re.findall(r"kept (batch-\d)", job.output(number)) for number in numbers]


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_hosts_recover_what_one_does_a_part_each(tmp_path):
    config, arguments = recovery_of(ipc=3, iterations=20)
    expected = recovering.make_images(config, tmp_path / "one").dataset
    with launch.Processes(
        (*arguments, f"--workdir={tmp_path / 'two'}"),
        tmp_path / "logs",
        processes=2,
        module="tests.pipeline.recovering",
    ) as job:
        assert job.wait() == [0, 0], job.output()
        assert kept_by(job) == [["batch-0", "batch-2"], ["batch-1"]]
        assert "sre2l: " in job.output(0) and "sre2l: " not in job.output(1)
    product = tmp_path / "two" / "distilled" / "sre2l_ipc3_conv1"
    made = load_distilled(product)
    np.testing.assert_array_equal(made.images, expected.images)
    assert not (product / "unfinished").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_one_host_goes_on_with_what_two_began(tmp_path):
    config, arguments = recovery_of(ipc=6, iterations=1000)
    expected = recovering.make_images(config, tmp_path / "one").dataset
    workdir = tmp_path / "w"
    kept = workdir / "distilled/sre2l_ipc6_conv1/unfinished"
    state = "batch-3/*[0-9]"

    def start(processes):
        return launch.Processes(
            (*arguments, f"--workdir={workdir}"),
            tmp_path / f"logs{len(list(tmp_path.iterdir()))}",
            processes=processes,
            module="tests.pipeline.recovering",
        )

    def parts():
        return sorted(p.stem for p in kept.glob("batch-*.npz"))

    with start(2) as job:
        job.wait_until(lambda: any(kept.glob(state)))
        launch.terminate(job.processes[1])
        assert job.wait(60) == [preemption.EXIT_CODE] * 2, job.output()
        assert "Traceback" not in job.output()
    assert "batch-5" not in parts() and any(kept.glob(state))
    with start(2) as job:
        job.wait_until(lambda: "batch-3" in parts())
        for process in job.processes:
            process.kill()
        assert job.wait() == [-signal.SIGKILL] * 2
        assert "batch-1" not in kept_by(job)[1]
    (kept / "batch-5.npz").mkdir()  # where one of them cannot write
    with start(2) as job:
        assert job.wait(60) == [1, 1], job.output()
        assert "Is a directory" in job.output(1)
        assert "error: process 1 stopped: " in job.output(0)
    (kept / "batch-5.npz").rmdir()
    (kept / "batch-1.npz").unlink()
    content = bytearray((kept / "batch-3.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (kept / "batch-3.npz").write_bytes(content)
    found = set(parts())
    with start(1) as job:
        assert job.wait() == [0], job.output()
        assert "batch-3 is made again" in job.output()
        (made,) = kept_by(job)
    assert {*made} - found == {f"batch-{n}" for n in range(6)} - found
    assert {*made} & found == {"batch-3"}
    made = load_distilled(kept.parent)
    np.testing.assert_array_equal(made.images, expected.images)


@pytest.mark.parametrize(
    ("options", "is_refused"),
    [
        ("protocol=datm", True),
        ("protocol=datm,lr=0.01", False),
        ("protocol=datm,optimizer=sgd-learning_rate=0.01", False),
        ("protocol=datm,optimizer=sgd+adamw-learning_rate=0.01", True),
        ("protocol=datm,optimizer=adamw", False),
        ("protocol=datm,tuning.enabled=True,tuning.validation_images=100", False),
        ("protocol=gift", False),
    ],
)
def test_the_learning_rate_learnt_with_the_images_is_asked_for(options, is_refused):
    config = common.get_config("digits")
    with_options(config, f"distill=random,{options}")
    job = mock.Mock()
    (job.spec,) = specs.expand(config)
    dataset = mock.Mock(metadata=mock.Mock(learning_rate=0.025))
    refused = pytest.raises(InputError, match=r"set optimizer\.learning_rate=0\.025")
    with refused if is_refused else contextlib.nullcontext():
        distilled_stage._check_learning_rate(job, dataset)
    dataset.metadata.learning_rate = None
    distilled_stage._check_learning_rate(job, dataset)


@pytest.mark.parametrize(("name", "is_told"), [("rded", True), ("mine", False)])
def test_published_sets_have_a_name_each(tmp_path, caplog, name, is_told):
    for value, file in enumerate(("dm_one", "dm_two")):
        images = np.full((10, 8, 8, 1), value, np.uint8)
        np.savez(tmp_path / f"{file}.npz", images=images, labels=np.arange(10))
    config = common.get_config("digits")
    config.distilled.update(name=name, ipc=1, path=str(tmp_path / "dm_one.npz"))
    digits = real.load_dataset("digits")

    def make():
        (spec,) = specs.expand(config)
        return make_distilled(
            Job(spec, tmp_path, digits, tuple(jax.devices()[:1])), None
        )

    with caplog.at_level("WARNING", logger="gift_jax"):
        make()
    assert ("are recorded as 'rded'" in caplog.text) is is_told
    config.distilled.path = str(tmp_path / "dm_two.npz")
    with pytest.raises(WorkdirError, match=r"--config\.distilled\.name=OTHER"):
        make()


def test_what_is_read_beside_a_file_counts(tmp_path):
    images = np.resize(np.linspace(0, 1, 8, dtype=np.float32), (10, 1, 8, 8))
    save_torch(tmp_path / "images_5000.pt", images)
    config = common.get_config("digits")
    config.distilled.update(ipc=1, path=str(tmp_path / "images_5000.pt"))
    digits = real.load_dataset("digits")

    def make():
        (spec,) = specs.expand(config)
        job = Job(spec, tmp_path / "work", digits, tuple(jax.devices()[:1]))
        return make_distilled(job, None).dataset

    save_torch(tmp_path / "labels_5000.pt", 5 * np.eye(10, dtype=np.float32))
    made = make()
    np.testing.assert_array_equal(make().soft_labels, made.soft_labels)
    save_torch(tmp_path / "labels_5000.pt", 7 * np.eye(10, dtype=np.float32))
    with pytest.raises(WorkdirError, match="beside"):
        make()
