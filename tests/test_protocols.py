"""Published protocols: their numbers, what wins over them, and their table in docs/."""

import importlib
import pathlib
import re
import sys

import pytest

from gift_jax import specs
from gift_jax.configs import common, protocols
from gift_jax.configs.protocols.base import Setting
from gift_jax.data import info
from gift_jax.runtime.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "protocols.md"


def config_of(options, dataset="cifar10"):
    config = importlib.import_module(f"gift_jax.configs.{dataset}")
    return config.get_config(options)


def job_of(options, dataset="cifar10"):
    # Not RDED's, which need a teacher, where a protocol has none.
    (job, *_) = specs.expand(config_of(f"distill=random,{options}", dataset))
    return job


# What each sets for IPC 10 on three datasets, in the words of rows of results.
DATASETS = ("cifar10", "tiny_imagenet", "imagenet1k_resnet18")
HEADER = (
    "protocol", "epochs", "batch", "optimizer", "rate", "loss", "labels", "views"
)  # fmt: skip


def cells(name, dataset, options=""):
    job = job_of(f"protocol={name}{options}", dataset)
    (student, *_), *_ = job.setups
    loss = "" if student.loss.label == "gift" else f"{student.loss.label}"
    return (
        name,
        str(job.train.epochs),
        str(job.train.batch_size or "ladder"),
        f"`{student.optimizer.label}`",
        f"{student.optimizer.learning_rate:g}",
        f"`{loss or 'gift'}`",
        f"`{job.relabel.label}`",
        f"`{job.augment.label}`",
    )


def table(dataset):
    lines = [HEADER, ["---"] * len(HEADER)]
    named = [name for name in protocols.PROTOCOLS if not has_none(name, dataset)]
    lines += [cells(name, dataset) for name in named]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def has_none(name, dataset):
    return name == "hard_truths" and dataset.startswith("imagenet1k")


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_tables_in_docs_are_those_of_the_configs(dataset):
    """Where this fails, the table that belongs there is in the message."""
    assert table(dataset) in DOCS.read_text(), f"\n{table(dataset)}"


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_a_protocol_is_followed_to_the_letter_unless_something_wins_over_it(name):
    for dataset in ("digits", "imagenet1k", *DATASETS):
        if has_none(name, dataset):
            continue
        job = job_of(f"protocol={name}", dataset)
        assert (job.protocol, job.protocol_changes) == (name, "")
    for options in (f"epochs=7,protocol={name}", f"protocol={name},epochs=7"):
        job = job_of(options)
        assert job.train.epochs == 7
        assert job.protocol_changes == "train.epochs=7"


def test_configs_say_how_they_differ_from_the_official_protocol():
    assert job_of("").protocol_changes == ""
    assert job_of("", "imagenet1k").protocol_changes == ""
    assert job_of("", "imagenet1k_resnet18").protocol_changes == ""
    assert job_of("", "digits").protocol_changes == (
        "augment.diffaug=color_crop_cutout_scale_rotate train.epochs=200"
    )
    # Loss and optimizer are what studies vary; rows name them.
    assert job_of("loss=kl+gift,optimizer=sgd").protocol_changes == ""


@pytest.mark.parametrize(
    "name", [name for name in protocols.PROTOCOLS if not has_none(name, "imagenet1k")]
)
def test_imagenet_has_its_own_recipes_at_64_pixels_too(name):
    small = cells(name, "imagenet1k", ",student=resnet18")
    assert small == cells(name, "imagenet1k_resnet18")


def test_recipes_are_by_the_name_of_the_dataset_before_the_side():
    def family(name, side):
        return Setting(name, side, None, 10, "conv3", ("conv3",)).family

    for name in info.DATASETS:
        # As channel statistics, by name in the official code.
        by_name = "imagenet" in name or name in ("imagewoof", "imagenette")
        if name == "tiny_imagenet":
            assert family(name, 32) == family(name, 224) == "tiny"
        elif by_name:
            assert family(name, 32) == family(name, 224) == "imagenet"
        elif "cifar" in name:
            assert family(name, 64) == "cifar"
    by_side = [family("folder:/data/pets", side) for side in (8, 32, 33, 64, 65)]
    assert by_side == ["cifar", "cifar", "tiny", "tiny", "imagenet"]


def test_a_recipe_by_the_side_needs_the_side():
    own = "dataset.name=folder:/data/pets"
    with pytest.raises(InputError, match=r"folder:/data/pets.*set dataset\.image_size"):
        job_of(f"protocol=rded,{own}", "digits")
    small = job_of(f"protocol=rded,{own},dataset.image_size=32", "digits")
    assert small.augment.shuffle == 1
    job_of(f"protocol=gift,{own}", "digits")  # is the same for all sides


def test_gvbsm_has_another_recipe_for_cifar100():
    _, epochs, batch, optimizer, rate, loss, *_ = cells("gvbsm", "cifar100")
    assert (epochs, batch, rate, loss) == (
        "1000",
        "64",
        "0.1",
        "`mse_ce-ce_weight=0.15`",
    )
    assert optimizer == "`sgd-decay_vectors=False-schedule=cosine`"


def batch_size_of_rded(dataset, ipc):
    """`argument.py` of RDED, line by line, with its names of datasets."""
    nclass = {"cifar10": 10, "cifar100": 100, "tiny": 200, "imagenet-1k": 1000}[dataset]
    if ipc == 50:
        size = 100
    elif ipc == 10:
        size = 50
    elif ipc == 1:
        size = 10
    if nclass == 100:
        size *= 2
    if nclass == 1000:
        size *= 2
    if dataset == "tiny":
        size = 100
    return min(size, ipc * nclass)


@pytest.mark.parametrize("ipc", [1, 10, 50])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("cifar10", "cifar10"),
        ("cifar100", "cifar100"),
        ("tiny", "tiny_imagenet"),
        ("imagenet-1k", "imagenet1k_resnet18"),
    ],
)
def test_batches_of_rded(theirs, ours, ipc):
    job = job_of(f"protocol=rded,ipc={ipc},student=resnet18", ours)
    assert job.train.batch_size == batch_size_of_rded(theirs, ipc)


def test_rded_has_one_exception_and_rates_by_student():
    exception = job_of("protocol=rded", "cifar100")
    assert exception.train.batch_size == 25
    assert exception.setups[0][0].optimizer.learning_rate == 2e-3
    for student, rate in (("vgg11", 5e-4), ("mobilenet_v2", 2.5e-3), ("conv3", 1e-3)):
        job = job_of(f"protocol=rded,student={student}")
        assert job.setups[0][0].optimizer.learning_rate == rate
    with pytest.raises(InputError, match="another learning rate each"):
        job_of("protocol=rded,student=vgg11+conv3")


def test_the_schedule_of_rd3_is_by_the_student():
    def schedule(student):
        (one, *_), *_ = job_of(f"protocol=rd3,student={student}").setups
        return one.optimizer.schedule

    for student in ("resnet18_modified", "resnet50", "resnet20"):
        assert schedule(student) == "cosine"
    assert schedule("conv3+conv2") == schedule("vgg11") == "smoothed_cosine"
    assert schedule("resnet18+resnet50") == "cosine"
    with pytest.raises(InputError, match=r"another schedule each .*one at a time"):
        schedule("conv3+resnet18")


def test_the_teacher_of_rd3_has_the_stem_for_the_size_of_the_images():
    def teacher(dataset):
        return job_of("protocol=rd3", dataset).teacher.name

    assert teacher("imagenet1k_resnet18") == "resnet18"
    assert teacher("imagenet1k") == teacher("cifar10") == "resnet18_modified"


@pytest.mark.parametrize("dataset", [*DATASETS, "imagenet1k"])
def test_ddranking_tries_the_rates_of_the_package(dataset):
    job = job_of("protocol=ddranking", dataset)
    (student, *_), *_ = job.setups
    rates = [student.optimizer.learning_rate * f for f in job.tuning.factors]
    assert rates == pytest.approx([0.001, 0.005, 0.01, 0.05, 0.1])


def test_hard_labels_need_no_teacher_and_are_for_small_images():
    assert not job_of("protocol=hard_truths").relabel.needs_teacher
    for dataset, side in (("imagenet1k_resnet18", 224), ("imagenet1k", 64)):
        expected = rf"is imagenet2012 at {side} pixels: protocol=rethinkdc,"
        with pytest.raises(InputError, match=expected):
            job_of("protocol=hard_truths", dataset)
    options = "protocol=rethinkdc,relabel.source=hard,loss=ce,augment.mix=none"
    job = job_of(options, "imagenet1k_resnet18")
    assert not job.relabel.needs_teacher
    assert job.protocol_changes == "relabel.source=hard augment.mix=none"


def test_protocols_of_a_grid_share_what_they_do_not_set():
    config = common.get_config("digits")
    config.variants = ("protocol=sre2l", "protocol=rethinkdc,epochs=9")
    first, second = specs.expand(config)
    assert (first.dataset, first.teacher) == (second.dataset, second.teacher)
    assert first.distilled == second.distilled
    assert (first.train.epochs, second.train.epochs) == (400, 9)
    assert first.variant == (("protocol", "sre2l"),)
    assert second.protocol_changes == "train.epochs=9"
    names = [job.tagged("made", "soft_labels", "run") for job in (first, second)]
    assert names == ["made_protocol=sre2l", "made_protocol=rethinkdc"]
    assert first.tagged("made", "teacher", "distilled") == "made"


def test_an_unknown_protocol():
    with pytest.raises(InputError, match=r"unknown protocol 'rdd3' \(did you mean"):
        config_of("protocol=rdd3")


def test_a_protocol_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "our_protocol.py").write_text(
        "def fields(setting):\n    return {'train.epochs': 3 * setting.ipc}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    job = job_of("protocol=our_protocol:fields,ipc=2")
    assert (job.train.epochs, job.protocol) == (6, "our_protocol:fields")
    del sys.modules["our_protocol"]


def test_every_module_is_a_protocol_with_a_source():
    folder = ROOT / "configs" / "protocols"
    modules = {p.stem for p in folder.glob("*.py")} - {"__init__", "base"}
    assert modules == set(protocols.PROTOCOLS)
    for name in modules:
        module = importlib.import_module(f"gift_jax.configs.protocols.{name}")
        assert re.search(r"https://github\.com/|arXiv \d{4}\.\d{5}", module.__doc__)
