"""What can change a result stands in recipes and rows, and nothing else does.

Every field of configs/common.py is changed in turn, once in a finished work directory
and once in a fresh one. A field that the table lacks fails the test.
"""

import json
import shutil
import types
import zlib

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from gift_jax import distill, losses, models, registry, torch_io
from gift_jax.configs import common
from gift_jax.distill import rded
from gift_jax.models import variables
from gift_jax.pipeline import job, labelling, results, students, teacher
from gift_jax.pipeline.products import WorkdirError
from gift_jax.runtime.errors import InputError
from gift_jax.teachers.flax_teacher import variable_shapes
from gift_jax.train import checkpoint, fit

pytestmark = pytest.mark.usefixtures("one_device")

# What a row measures; the rest of it says what was measured.
MEASURED = {
    *("top1_last", "top1_best", "top5_last", "gradient_norm_first", "train_seconds"),
    *("teacher_top1", "teacher_top1_distilled", "status", "soft_label_bytes"),
}
AUGMENT = {
    "factor": 2,
    "shuffle": 2,
    "resized_crop": 0.5,
    "pad_crop": 2,
    "flip": True,
    "diffaug": "flip",
    "mix": "mixup",
}
OPTIMIZER = {
    "name": "lion",
    "learning_rate": 0.05,
    "weight_decay": 0.25,
    "momentum": 0.5,
    "nesterov": True,
    "schedule": "constant",
    "warmup_epochs": 1,
    "ema": 0.5,
    "decay_vectors": False,
}
# Fields with another valid value, or all that must be set with it.
CHANGED = {
    "seed": 1,
    "variants": ("ipc=2",),
    "dataset.name": "folder:{folder}",
    "dataset.mean": {"dataset.mean": (0.5,), "dataset.std": (0.3759,)},
    "dataset.std": {"dataset.mean": (0.3055,), "dataset.std": (0.5,)},
    "dataset.train_split": {
        "dataset.train_split": "test",
        "dataset.test_split": "train",
    },
    "dataset.test_split": {
        "dataset.name": "folder:{folder}",
        "dataset.test_split": "other",
    },
    "teacher.name": "conv2",
    "teacher.also": ("conv1-width=3",),
    "teacher.width": 8,
    "teacher.norm": "instance",
    "teacher.dtype": "bfloat16",
    "teacher.checkpoint": "{checkpoint}",
    "teacher.mean": {"teacher.mean": (0.5,), "teacher.std": (0.3759,)},
    "teacher.std": {"teacher.mean": (0.3055,), "teacher.std": (0.5,)},
    "teacher.resize": {
        "teacher.resize": 10,
        "teacher.crop": 8,
        "teacher.transform_views": True,
    },
    "teacher.crop": {
        "teacher.resize": 12,
        "teacher.crop": 8,
        "teacher.transform_views": True,
    },
    "teacher.transform_views": {"teacher.crop": 8, "teacher.transform_views": True},
    "teacher.epochs": 2,
    "teacher.label_noise": 0.5,
    "teacher.batch_size": 64,
    **{f"teacher.optimizer.{name}": value for name, value in OPTIMIZER.items()},
    **{f"teacher.augment.{name}": value for name, value in AUGMENT.items()},
    "teacher.augment.diffaug_mode": {
        "teacher.augment.diffaug": "crop_flip",
        "teacher.augment.diffaug_mode": "single",
    },
    "teacher.augment.mix_alpha": {
        "teacher.augment.mix": "mixup",
        "teacher.augment.mix_alpha": 0.5,
    },
    "distilled.name": "random",
    "distilled.ipc": 2,
    "distilled.path": {"distilled.path": "{published}", "distilled.name": "published"},
    "distilled.source": {
        "distilled.path": "{published}",
        "distilled.name": "published",
        "distilled.source": "npz",
    },
    "distilled.rded.factor": 2,
    "distilled.rded.images_per_class": 40,
    "distilled.rded.crops_per_image": 3,
    **{f"augment.{name}": value for name, value in AUGMENT.items()},
    "augment.diffaug_mode": {
        "augment.diffaug": "crop_flip",
        "augment.diffaug_mode": "single",
    },
    "augment.mix_alpha": {"augment.mix": "mixup", "augment.mix_alpha": 0.5},
    "relabel.source": "online",
    "relabel.views": 1,
    "relabel.format": "int8",
    "relabel.mix_hard_labels": {
        "augment.mix": "cutmix",
        "relabel.mix_hard_labels": True,
    },
    "relabel.hard_epochs": 1,
    "relabel.hard_loss": {
        "relabel.hard_epochs": 1,
        "relabel.hard_loss": "ce-smoothing=0.5",
    },
    "student.name": "conv2",
    "student.width": 8,
    "student.norm": "instance",
    "student.dtype": "bfloat16",
    "loss.name": "kl",
    "loss.gift.gamma": 0.2,
    "loss.gift.alpha": 0.2,
    "loss.gift.mode": "convex",
    **{f"optimizer.{name}": value for name, value in OPTIMIZER.items()},
    "train.epochs": 3,
    "train.batch_size": 5,
    "train.seeds": (1,),
    "train.eval_every": 2,
    "train.init_from": "{run}",
    "continual.steps": {"continual.steps": 5, "continual.orders": (0,)},
    "continual.orders": {"continual.steps": 2, "continual.orders": (3,)},
    "continual.teachers": {
        "continual.steps": 2,
        "continual.orders": (0,),
        "continual.teachers": "masked",
    },
    "tuning.enabled": {"tuning.enabled": True, "tuning.validation_images": 300},
}
REFUSED = {
    "dataset.image_size": 16,
    "relabel.path": "{folder}",
}
OTHER = {str: lambda _: "convex", bool: lambda on: not on, float: lambda x: 1 + x / 2}
# Why each cannot change a result.
WITHOUT_EFFECT = {
    "dataset.data_dir": ("{folder}", "the digits are part of scikit-learn"),
    "dataset.workers": (2, "how images are read"),
    "teacher.min_accuracy": (0.5, "a threshold below which nothing is labelled"),
    "distilled.max_bytes": (10**9, "a limit beyond which nothing is read"),
    "relabel.batch_size": (5, "how many images the teacher sees at once"),
    "relabel.store": ("{store}", "where labels lie"),
    "train.checkpoint_every": (1, "what can be gone on from"),
    "train.keep_checkpoints": (3, "what can be gone on from"),
    "train.eval_batch_size": (100, "how many images are counted at once"),
    "train.students_at_once": (2, "there is one student"),
    "train.processes": (2, "there is one student"),
    "protocol": ("rd3", "a name: the options set its fields"),
    "train.evaluators": ("accuracy+identity_evaluator:make", "measures, only"),
    "tuning.validation_images": (7, "tuning is off"),
    "tuning.factors": ((1.0, 2.0, 3.0), "tuning is off"),
    "tuning.seeds": ((3,), "tuning is off"),
    **{
        f"distilled.{distiller}.{name}": (value, "of another distiller")
        for distiller in distill.DISTILLERS
        if distiller != "rded"
        for name, value in {
            "iterations": 3,
            "learning_rate": 0.5,
            "bn_weight": 0.5,
            "statistics_weight": 0.5,
            "flatness_weight": 0.5,
            "batch_size": 7,
            "curriculum": "step",
            "milestone": 0.5,
            "width": 5,
            "experts": 3,
            "epochs": 200,
            "lr_teacher": 0.5,
            "zca": False,
            "start_epochs": (0, 1, 2),
            "expansion_end": 7,
            "expert_epochs": 3,
            "syn_steps": 7,
            "lr_y": 0.5,
            "lr_lr": 0.5,
        }.items()
        if name in registry.keyword_defaults(distill.DISTILLERS[distiller])
    },
    **{
        f"loss.{loss}.{name}": (OTHER[type(default)](default), "of another loss")
        for loss in losses.LOSS_NAMES
        if loss != "gift"
        for name, default in losses.hyperparameters(loss).items()
    },
}


def flattened(section, prefix=""):
    for name in section:
        field = f"{prefix}{name}"
        if hasattr(section[name], "keys"):
            yield from flattened(section[name], f"{field}.")
        else:
            yield field


def test_the_table_has_every_field():
    fields = set(flattened(common.get_config()))
    assert fields == CHANGED.keys() | REFUSED.keys() | WITHOUT_EFFECT.keys()


def config(values, places=()):
    """The smallest job, with some fields changed."""
    found = common.get_config("digits")
    fields = {
        "teacher.name": "conv1",
        "teacher.width": 4,
        "teacher.epochs": 1,
        "teacher.min_accuracy": 0.0,
        "teacher.augment.flip": False,
        "distilled.ipc": 1,
        "distilled.rded.images_per_class": 4,
        "distilled.rded.crops_per_image": 2,
        "augment.diffaug": "crop",
        "student.name": "conv1",
        "student.width": 4,
        "optimizer.name": "sgd",
        "train.epochs": 2,
        **values,
    }
    for field, value in fields.items():
        if isinstance(value, str):
            value = value.format(**dict(places))
        *path, leaf = field.split(".")
        section = found
        for part in path:
            section = section[part]
        section[leaf] = value
    return found


def changes(field, value):
    return value if isinstance(value, dict) else {field: value}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    (row,) = job.run_job(config({}), directory)
    return directory, row


@pytest.fixture(scope="module")
def places(finished, tmp_path_factory):
    """Paths that fields can name."""
    root = tmp_path_factory.mktemp("places")
    digits = datasets.load_digits()
    for number, (image, label) in enumerate(
        zip(digits.images[:400], digits.target[:400], strict=True)
    ):
        folder = root / "folder" / ("val" if number % 4 == 0 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    model = models.create_model("conv1", num_classes=10, image_size=8, width=4)
    weights = models.init_variables(model, jax.random.key(7), image_size=8, channels=1)
    state = torch_io.export_torch(
        weights, model="conv1", num_classes=10, image_size=8, width=4
    )
    torch_io.save_torch(root / "weights.pth", {"model": state})
    shutil.copytree(root / "folder" / "val", root / "folder" / "other")
    next((root / "folder" / "other").rglob("*.png")).unlink()
    images = np.random.default_rng(0).uniform(size=(10, 8, 8, 1)).astype(np.float32)
    np.savez(root / "published.npz", images=images, labels=np.arange(10))
    directory, row = finished
    return {
        "folder": root / "folder",
        "checkpoint": root / "weights.pth",
        "published": root / "published.npz",
        "run": directory / "runs" / row["run_id"],
        "store": root / "store",
    }


@pytest.fixture(autouse=True)
def evaluator_of_the_user_s_own(tmp_path, monkeypatch):
    (tmp_path / "identity_evaluator.py").write_text(
        "def make(split, transform, *, devices, batch_size, workers):\n"
        "    return lambda model, state: {'images': float(len(split))}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def final_weights(directory, run_id):
    path = checkpoint.latest_weights(directory / "runs" / run_id)
    model = models.create_model("conv1", num_classes=10, image_size=8, width=4)
    like = models.init_variables(model, jax.random.key(0), image_size=8, channels=1)
    return variables.load_variables(path, like=like)


def identity(row):
    """What a row says of how it was made, as its group in reports and its seed."""
    return {name: row[name] for name in (*results.SETTINGS, "seed")}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A work directory like `finished` in which nothing was trained."""
    directory = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patch:
        leave_untrained(patch)
        (row,) = job.run_job(config({}), directory)
    return directory, row


@pytest.fixture
def untrained(monkeypatch):
    """Nothing is trained, as recipes and rows do not depend on it."""
    leave_untrained(monkeypatch)


def leave_untrained(monkeypatch):
    def at_once(states, *args, evaluators, on_start, **kwargs):
        for index in range(len(states)):
            on_start(index, fit.Record())
        last = {"top1": 1.0}
        for evaluator in evaluators[1:]:
            last |= evaluator(states[0].model, states[0])
        record = fit.Record(last=last, best=last)
        return [fit.Fitted(state, record) for state in states]

    def drawn(model, split, spec, *args, **kwargs):
        rng = np.random.default_rng(zlib.crc32(repr(spec).encode()))
        shapes = variable_shapes(model, split.images(np.arange(1)).shape[1:])
        return jax.tree.map(lambda leaf: rng.uniform(size=leaf.shape), shapes)

    def score(teacher):
        return lambda pixels, labels: pixels.mean(axis=(1, 2, 3))

    accuracy = {"top1": 50.0, "top5": 90.0, "count": 360}
    monkeypatch.setattr(students, "fit_together", at_once)
    # Without a state, whose initialisation would be compiled for every network.
    state = types.SimpleNamespace(model=None)
    monkeypatch.setattr(students.Run, "new_state", lambda run: state)
    monkeypatch.setattr(teacher, "train_teacher", drawn)
    monkeypatch.setattr(rded, "make_score", score)
    monkeypatch.setattr(teacher, "_test_accuracy", lambda *_: accuracy)
    monkeypatch.setattr(labelling.check, "check_on_distilled", lambda *_, **__: 50.0)
    monkeypatch.setattr(labelling.relabel, "make_label_views", zeros)


def zeros(teacher, *args, **kwargs):
    classes = getattr(teacher, "classes", range(10))
    return lambda view, rows: np.zeros((len(rows), len(classes)))


@pytest.mark.parametrize("field", CHANGED)
def test_another_value_is_another_group_or_is_refused(
    field, planned, places, tmp_path, untrained
):
    directory, row = planned
    changed = config(changes(field, CHANGED[field]), places)
    fresh = job.run_job(changed, tmp_path / "fresh")
    assert fresh[0]["status"] == "finished"
    assert identity(fresh[0]) != identity(row)
    assert fresh[0]["config_hash"] != row["config_hash"]
    shutil.copytree(directory, tmp_path / "same")
    try:
        same = job.run_job(changed, tmp_path / "same")
    except WorkdirError as error:
        assert "was made by another config" in str(error)
    else:
        assert [r["run_id"] for r in same] == [r["run_id"] for r in fresh]
        assert same[0]["run_id"] != row["run_id"]
        assert same[0]["config_hash"] == fresh[0]["config_hash"]


@pytest.mark.slow
@pytest.mark.parametrize("field", CHANGED)
def test_another_value_trains_another_student(field, finished, places, tmp_path):
    directory, row = finished
    (fresh, *_) = job.run_job(
        config(changes(field, CHANGED[field]), places), tmp_path / "fresh"
    )
    ours, theirs = (
        (place / "runs" / run["run_id"] / "metrics.jsonl").read_text()
        for place, run in ((directory, row), (tmp_path / "fresh", fresh))
    )
    # Where labels come from the store they are those of the teacher online.
    assert (ours == theirs) == (field in ("relabel.source", "tuning.enabled"))


@pytest.mark.parametrize("field", REFUSED)
def test_what_is_refused(field, places, tmp_path):
    with pytest.raises(InputError):
        job.run_job(config(changes(field, REFUSED[field]), places), tmp_path)
    assert not (tmp_path / "runs").exists()


def test_what_has_no_effect_changes_neither_group_nor_weights(
    finished, places, tmp_path
):
    """All of it at once, which costs one training."""
    directory, row = finished
    values = {field: value for field, (value, _) in WITHOUT_EFFECT.items()}
    (fresh,) = job.run_job(config(values, places), tmp_path / "fresh")
    assert identity(fresh) == identity(row)
    assert fresh["top1_last"] == row["top1_last"]
    jax.tree.map(
        np.testing.assert_array_equal,
        final_weights(directory, row["run_id"]),
        final_weights(tmp_path / "fresh", fresh["run_id"]),
    )


def test_two_folders_of_one_name_share_nothing(places, tmp_path):
    """Neither in one work directory nor in one place of soft labels."""
    other = tmp_path / "other"
    shutil.copytree(places["folder"], other)
    for path in sorted((other / "train").rglob("*.png")):
        pixels = np.asarray(Image.open(path))
        Image.fromarray(pixels[::-1].copy()).save(path)

    def fields(folder):
        return {
            "dataset.name": f"folder:{folder}",
            "dataset.mean": (0.3,),
            "dataset.std": (0.4,),
            "relabel.store": str(tmp_path / "store"),
        }

    def row(folder, workdir):
        (found,) = job.run_job(config(fields(folder)), tmp_path / workdir)
        return found

    link = tmp_path / "link"
    link.symlink_to(places["folder"])
    first = row(link, "a")
    link.unlink()
    link.symlink_to(other)
    with pytest.raises(WorkdirError, match=r"dataset\.images: made with"):
        row(link, "a")
    second = row(link, "b")
    assert second["trained_on"] != first["trained_on"]
    assert second["dataset_fingerprint"] != first["dataset_fingerprint"]
    assert second["gradient_norm_first"] != first["gradient_norm_first"]
    assert len(list((tmp_path / "store").iterdir())) == 2


def test_a_moved_folder_is_the_same_dataset(places, tmp_path, untrained):
    fields = {"dataset.mean": (0.3,), "dataset.std": (0.4,)}
    shutil.copytree(places["folder"], tmp_path / "moved")
    rows = [
        job.run_job(
            config({**fields, "dataset.name": f"folder:{folder}"}),
            tmp_path / str(number),
        )[0]
        for number, folder in enumerate((places["folder"], tmp_path / "moved"))
    ]
    assert rows[0]["dataset_fingerprint"] == rows[1]["dataset_fingerprint"]
    assert rows[0]["trained_on"] == rows[1]["trained_on"]


@pytest.mark.parametrize(
    "variants",
    [
        ("augment.diffaug=flip", "augment.diffaug=cutout"),
        ("teacher.epochs=1", "teacher.epochs=2"),
        ("seed=0", "seed=1"),
        ("protocol=sre2l,epochs=2", "protocol=rethinkdc,epochs=2"),
        ("distilled.rded.factor=1", "distilled.rded.factor=2"),
        ("train.eval_every=1", "train.eval_every=2"),
        ("", "tuning.enabled=True,tuning.validation_images=100"),
    ],
)
def test_variants_of_any_field_lie_side_by_side(variants, tmp_path, untrained):
    rows = job.run_job(config({"variants": variants}), tmp_path)
    assert len({row["run_id"] for row in rows}) == 2
    assert len({json.dumps(identity(row)) for row in rows}) == 2
    again = job.run_job(config({"variants": variants}), tmp_path)
    assert again == rows


def test_an_old_work_directory_is_refused_by_its_version(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "old")
    (tmp_path / "old" / "version.json").unlink()
    with pytest.raises(WorkdirError, match=r"version 1, .* version 2") as caught:
        job.run_job(config({}), tmp_path / "old")
    assert "\n" not in str(caught.value)


def test_equal_batch_sizes_are_one_student(finished, tmp_path):
    directory, row = finished
    shutil.copytree(directory, tmp_path / "same")
    (asked,) = job.run_job(config({"train.batch_size": 10}), tmp_path / "same")
    assert asked == row


def test_a_published_set_of_another_ipc_is_refused(places, tmp_path):
    fields = changes("distilled.path", CHANGED["distilled.path"])
    with pytest.raises(InputError, match=r"2.*1|1.*2"):
        job.run_job(config({**fields, "distilled.ipc": 2}, places), tmp_path)
