"""The whole job on digits: its products, its second start, its interruptions."""

import json
import shutil

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from gift_jax import models, torch_io
from gift_jax.configs import digits
from gift_jax.distilled import load_distilled
from gift_jax.evaluators import AccuracyEvaluator
from gift_jax.models import variables
from gift_jax.pipeline import (
    distilled,
    grid,
    job,
    labelling,
    products,
    results,
    teacher,
)
from gift_jax.soft_labels.store import DamagedStoreError
from gift_jax.train import checkpoint, fit

pytestmark = pytest.mark.usefixtures("one_device")

DISTILLED = "rded_ipc2_conv1-width=16"
RUN = f"{DISTILLED}_v4_conv1-width=8_gift_adamw_lr0.001_e4_s0"


def small_config(**fields):
    """A job that takes seconds: narrow networks and few epochs."""
    config = digits.get_config()
    config.teacher.name = "conv1"
    config.teacher.width = 16
    config.teacher.epochs = 3
    config.distilled.name = "rded"
    config.distilled.ipc = 2
    config.distilled.rded.images_per_class = 10
    config.distilled.rded.crops_per_image = 2
    config.augment.diffaug = "crop"
    config.student.name = "conv1"
    config.student.width = 8
    config.loss.name = "gift"
    config.train.epochs = 4
    config.train.processes = 1
    for field, value in fields.items():
        section, name = field.split("__")
        target = config if section == "config" else config[section]
        *path, name = name.split(".")
        for part in path:
            target = target[part]
        target[name] = value
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("job")
    rows = job.run_job(small_config(loss__name="gift+kl"), directory)
    return directory, rows


def test_rows_hold_what_others_build_on(finished):
    directory, rows = finished
    assert [row["loss"] for row in rows] == ["gift", "kl"]
    assert results.read_results(directory) == rows
    # Names that others build on, see docs/workdir.md.
    assert set(rows[0]) >= {
        "run_id",
        "dataset",
        "distill",
        "ipc",
        "teacher",
        "student",
        "loss",
        "optimizer",
        "learning_rate",
        "seed",
        "epochs",
        "views",
        "top1_last",
        "top1_best",
        "top5_last",
        "status",
        "train_seconds",
        "devices",
        "processor",
        "version",
        "config_hash",
    }
    row = rows[0]
    assert (row["dataset"], row["distill"], row["ipc"]) == ("digits", "rded", 2)
    assert (row["teacher"], row["student"]) == ("conv1-width=16", "conv1-width=8")
    assert row["run_id"] == RUN
    assert (row["optimizer"], row["learning_rate"]) == ("adamw", 1e-3)
    assert (row["epochs"], row["views"], row["status"]) == (4, 4, "finished")
    assert 0 <= row["top1_last"] <= row["top1_best"] <= 100
    assert row["top1_last"] <= row["top5_last"] <= 100
    assert row["teacher_top1"] > 50


def test_products_lie_where_the_documentation_says(finished):
    directory, rows = finished
    for name in (
        "teacher/conv1-width=16/done.json",
        f"distilled/{DISTILLED}/distilled.npz",
        f"distilled/{DISTILLED}/distilled.json",
        f"distilled/{DISTILLED}/preview.png",
        f"soft_labels/{DISTILLED}_v4/logits/zarr.json",
        f"runs/{rows[0]['run_id']}/checkpoints/4",
    ):
        assert (directory / name).exists(), name
    lines = (directory / "runs" / rows[0]["run_id"] / "metrics.jsonl").read_text()
    metrics = [json.loads(line) for line in lines.splitlines()]
    assert [line["epoch"] for line in metrics] == [0, 1, 2, 3]
    assert metrics[-1]["test_top1"] == rows[0]["top1_last"]


def test_second_start_makes_nothing_again(finished, monkeypatch):
    directory, rows = finished
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}

    def fail(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(teacher, "train_teacher", fail)
    monkeypatch.setattr(labelling.relabel, "relabel", fail)
    monkeypatch.setattr(distilled, "_new_distilled", fail)
    monkeypatch.setattr(fit, "train_epochs", fail)
    assert job.run_job(small_config(loss__name="gift+kl"), directory) == rows
    for path, written in before.items():
        assert path.stat().st_mtime_ns == written, path


def test_lines_of_the_results_that_are_damaged_are_said(finished, tmp_path, caplog):
    directory, rows = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"half": \n')
    assert job.run_job(small_config(loss__name="gift+kl"), tmp_path) == rows
    assert "results.jsonl: passed over line 3: not JSON" in caplog.text


def test_a_damaged_chunk_is_made_again_once_it_is_deleted(finished, tmp_path):
    directory, rows = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "runs")
    chunk = tmp_path / "soft_labels" / f"{DISTILLED}_v4" / "logits/c/2/0/0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedStoreError, match=r"view 2 .* delete the chunk"):
        job.run_job(small_config(), tmp_path)
    chunk.unlink()
    assert job.run_job(small_config(), tmp_path)[0]["top1_last"] == rows[0]["top1_last"]
    assert chunk.read_bytes() == whole


@pytest.mark.parametrize(
    ("field", "value", "product"),
    [
        ("teacher__epochs", 5, "teacher/conv1-width=16"),
        ("distilled__rded.crops_per_image", 3, f"distilled/{DISTILLED}"),
        ("augment__diffaug", "flip", f"soft_labels/{DISTILLED}_v4"),
        ("train__eval_every", 3, f"runs/{RUN}"),
    ],
)
def test_workdir_of_another_config_is_refused(finished, field, value, product):
    directory, _ = finished
    with pytest.raises(products.WorkdirError) as caught:
        job.run_job(small_config(**{field: value}), directory)
    message = str(caught.value)
    assert product in message
    assert field.split("__")[1].split(".")[-1] in message and str(value) in message
    assert "--workdir" in message


def test_everything_is_repeatable(finished, tmp_path):
    directory, rows = finished
    again = job.run_job(small_config(), tmp_path)
    for name in ("top1_last", "top5_last", "run_id", "config_hash", "teacher_top1"):
        assert again[0][name] == rows[0][name], name
    ours, theirs = (
        load_distilled(d / "distilled" / DISTILLED) for d in (directory, tmp_path)
    )
    np.testing.assert_array_equal(ours.images, theirs.images)


def final_variables(run_directory):
    model = models.create_model("conv1", num_classes=10, image_size=8, width=8)
    expected = jax.eval_shape(
        lambda key: models.init_variables(model, key, image_size=8, channels=1),
        jax.random.key(0),
    )
    path = checkpoint.latest_weights(run_directory)
    return variables.load_variables(path, like=expected)


class Killed(Exception):
    """Stands for the end of the process."""


def test_interrupted_run_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch):
    directory, rows = finished
    train_epochs = fit.train_epochs

    def killed_after_three_epochs(*args, **kwargs):
        for epoch, state, metrics in train_epochs(*args, **kwargs):
            if epoch == 3:
                raise Killed
            yield epoch, state, metrics

    config = small_config(train__checkpoint_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "train_epochs", killed_after_three_epochs)
        with pytest.raises(Killed):
            job.run_job(config, tmp_path)
    assert results.read_results(tmp_path) == []
    resumed = job.run_job(config, tmp_path)[0]
    # Epoch 2 was trained and logged, but not saved, before the end.
    name = f"runs/{resumed['run_id']}"
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]
    reference = (directory / name / "metrics.jsonl").read_text().splitlines()
    assert lines == reference
    assert resumed["top1_last"] == rows[0]["top1_last"]
    jax.tree.map(
        np.testing.assert_array_equal,
        final_variables(tmp_path / name),
        final_variables(directory / name),
    )


def test_the_best_weights_are_those_that_were_measured_best(tmp_path, monkeypatch):
    measured = iter([90.0, 80.0, 70.0])

    def evaluate_next(self, model, state):
        return {"top1": next(measured), "top5": 95.0}

    config = small_config(
        train__epochs=12, train__eval_every=4, train__checkpoint_every=1
    )
    monkeypatch.setattr(AccuracyEvaluator, "__call__", evaluate_next)
    row = job.run_job(config, tmp_path)[0]
    assert (row["top1_best"], row["top1_last"]) == (90.0, 70.0)
    checkpoints = tmp_path / "runs" / row["run_id"] / "checkpoints"
    kept = {int(p.name) for p in checkpoints.iterdir() if p.name.isdigit()}
    assert kept == {4, 11, 12}  # the best, and the latest two


@pytest.mark.slow
def test_products_of_two_teachers_lie_side_by_side(finished, tmp_path):
    directory, rows = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    both = job.run_job(small_config(teacher__name="conv1+conv1-width=8"), tmp_path)
    assert [row["teacher"] for row in both] == ["conv1-width=16", "conv1-width=8"]
    assert both[0] == rows[0]
    assert (tmp_path / "distilled" / "rded_ipc2_conv1-width=8").is_dir()


@pytest.mark.slow
def test_a_batch_size_uses_the_devices_it_divides_over(finished, tmp_path, monkeypatch):
    directory, _ = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:4])
    for batch_size, devices in ((6, "3 cpu"), (8, "4 cpu")):
        row = job.run_job(small_config(train__batch_size=batch_size), tmp_path)[0]
        assert (row["status"], row["devices"]) == ("finished", devices)


@pytest.mark.slow
def test_the_official_batch_uses_the_devices_it_divides_over(
    finished, tmp_path, monkeypatch, caplog
):
    directory, _ = finished
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:4])
    with caplog.at_level("WARNING", "gift_jax"):
        row = job.run_job(small_config(), tmp_path)[0]
    assert "a batch of 50 is spread over 2 of 4 devices" in caplog.text
    assert row["devices"] == "2 cpu"


def test_diverged_run_is_recorded_and_does_not_stop_the_others(tmp_path):
    config = small_config(loss__name="mse", train__seeds=(0, 1), optimizer__name="sgd")
    config.optimizer.learning_rate = 1e30
    rows = job.run_job(config, tmp_path)
    assert [row["status"] for row in rows] == ["diverged", "diverged"]
    assert all(row["diverged_epoch"] < 4 for row in rows)
    # One batch of 20 images an epoch.
    assert all(row["diverged_step"] == row["diverged_epoch"] for row in rows)
    assert results.read_results(tmp_path) == rows


def test_a_run_that_diverges_before_it_is_evaluated_is_recorded(tmp_path):
    config = small_config(loss__name="mse", optimizer__name="sgd", train__eval_every=4)
    config.optimizer.learning_rate = 1e30
    rows = job.run_job(config, tmp_path)
    assert [(row["status"], row["top1_last"]) for row in rows] == [("diverged", None)]
    assert job.run_job(config, tmp_path) == rows


def test_a_run_whose_last_state_is_not_saved_is_not_finished(tmp_path, monkeypatch):
    def fails(self):
        raise variables.CheckpointError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "wait", fails)
        with pytest.raises(variables.CheckpointError, match="disk is full"):
            job.run_job(small_config(), tmp_path)
    assert not list(tmp_path.glob("runs/*/done.json"))
    assert job.run_job(small_config(), tmp_path)[0]["status"] == "finished"


def test_starting_from_another_optimizers_weights(finished, tmp_path, caplog):
    directory, rows = finished
    source = directory / "runs" / rows[0]["run_id"]
    config = small_config(
        train__init_from=str(source), train__epochs=1, optimizer__name="sgd"
    )
    # With a rate of zero what is measured are the weights that were taken over, but
    # for the batch statistics, which one epoch moves.
    config.optimizer.learning_rate = 0.0
    with caplog.at_level("INFO", "gift_jax"):
        row = job.run_job(config, tmp_path)[0]
    assert "fresh optimizer state" in caplog.text
    final = tmp_path / "runs" / row["run_id"]
    jax.tree.map(
        np.testing.assert_array_equal,
        final_variables(source)["params"],
        final_variables(final)["params"],
    )


def test_soft_labels_of_the_dataset_need_no_teacher(tmp_path):
    config = small_config()
    labels = np.repeat(np.arange(10), 2)
    images = np.random.default_rng(0).uniform(size=(20, 8, 8, 1)).astype(np.float32)
    path = tmp_path / "dataset.npz"
    np.savez(
        path,
        images=images,
        labels=labels,
        soft_labels=np.eye(10, dtype=np.float32)[labels],
    )
    config.distilled.name = "published"
    config.distilled.path = str(path)
    config.relabel.source = "dataset"
    row = job.run_job(config, tmp_path / "workdir")[0]
    assert (row["distill"], row["teacher"], row["status"]) == (
        "published",
        None,
        "finished",
    )
    assert not (tmp_path / "workdir" / "teacher").exists()


def test_kinds_of_labels_lie_side_by_side(tmp_path):
    """Hard ones, one an image, one a view, and hard ones in the middle."""
    kinds = {
        "hard": "relabel.source=hard,loss=ce",
        "fixed": "relabel.source=fixed",
        "store-mix_hard_labels=True": "relabel.mix_hard_labels=True",
        "store-hard_epochs=2": "relabel.hard_epochs=2",
    }
    config = small_config(
        distilled__name="rded",
        augment__diffaug="",
        augment__mix="cutmix",
        config__variants=tuple(kinds.values()),
    )
    rows = job.run_job(config, tmp_path)
    assert [row["soft_labels"] for row in rows] == list(kinds)
    assert [row["status"] for row in rows] == ["finished"] * 4
    assert [row["views"] for row in rows] == [4, 4, 4, 2]
    assert len({row["trained_on"] for row in rows}) == 4
    logits = [row["soft_label_bytes"] for row in rows]
    # 20 images, 10 classes, float16: none; of the images; of 4 views, of 2.
    assert logits == [None, 400, 1600, 800]
    assert job.run_job(config, tmp_path) == rows


def test_ipc_larger_than_the_class_leaves_nothing_behind(finished, tmp_path):
    config = small_config(distilled__name="random", distilled__ipc=500)
    config.relabel.source = "dataset"
    with pytest.raises(ValueError, match="500"):
        job.run_job(config, tmp_path)
    assert not (tmp_path / "distilled" / "random_ipc500").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("loss__name", "gfit", "did you mean 'gift'"),
        ("train__seeds", ("a",), r"train\.seeds is \('a',\)"),
        ("teacher__checkpoint", "/no/such/file", "does not exist"),
        ("distilled__name", "rdde", "rded"),
        # Of networks, which specs do not build.
        ("student__norm", "bacth", "batch"),
        ("student__dtype", "float16", "bfloat16"),
    ],
)
def test_mistakes_are_found_before_any_work(tmp_path, field, value, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        job.run_job(small_config(**{field: value}), tmp_path / "workdir")
    assert not (tmp_path / "workdir" / "teacher").exists()


def test_unwritable_workdir_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(products.WorkdirError, match="cannot write to"):
        job.run_job(small_config(), tmp_path / "file" / "workdir")


def test_a_teacher_of_other_channels_is_refused(tmp_path):
    model = models.create_model("conv1", num_classes=10, image_size=8, width=16)
    # Trained on colour images; the digits are grey.
    colour = models.init_variables(model, jax.random.key(0), image_size=8, channels=3)
    path = tmp_path / "colour.pth"
    state = torch_io.export_torch(
        colour, model="conv1", num_classes=10, image_size=8, width=16
    )
    torch_io.save_torch(path, {"model": state})
    config = small_config(teacher__checkpoint=str(path))
    with pytest.raises(variables.CheckpointMismatchError, match=r"3, 16.*1, 16"):
        job.run_job(config, tmp_path / "workdir")


def test_broken_published_images_are_found_before_a_teacher_is_trained(tmp_path):
    path = tmp_path / "broken.npz"
    images = np.full((10, 8, 8, 1), np.nan, np.float32)
    np.savez(path, images=images, labels=np.arange(10))
    with pytest.raises(ValueError, match="NaN"):
        job.run_job(small_config(distilled__path=str(path)), tmp_path / "workdir")
    assert not (tmp_path / "workdir" / "teacher").exists()


def test_how_much_a_published_file_may_unpack_to(tmp_path):
    path = tmp_path / "published.npz"
    np.savez(path, images=np.zeros((10, 8, 8, 1), np.uint8), labels=np.arange(10))
    fields = {"distilled__path": str(path), "distilled__max_bytes": 500}
    with pytest.raises(ValueError, match="more than the 500 that it may unpack to"):
        job.run_job(small_config(**fields), tmp_path / "workdir")


def test_compiled_functions_are_kept_where_the_user_says(tmp_path):
    def cache_of(directory):
        grid.Grid(small_config(), directory, grid.Shard())
        return jax.config.values["jax_compilation_cache_dir"]

    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "user"))
        assert cache_of(tmp_path / "a") == str(tmp_path / "user")
        jax.config.update("jax_compilation_cache_dir", None)
        # Otherwise in the work directory, also in that of a later job.
        for name in "abb":
            kept = tmp_path / name / "compilation_cache"
            assert cache_of(tmp_path / name) == str(kept)
            jax.jit(lambda x: 2 * x)(np.ones(3))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
