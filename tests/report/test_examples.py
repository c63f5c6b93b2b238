"""Tests of `gift_jax.report.examples`: images, views and soft labels that are shown."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.augment import AugmentSpec
from gift_jax.report import examples
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels.codecs import get_codec
from gift_jax.soft_labels.store import open_store
from gift_jax.soft_labels.views import AugmentedViews, train_data
from tests.report.rows import FINISHED_LABELS, KL, row, write_distilled


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_examples_show_the_view_that_was_labelled(tmp_path):
    dataset, logits = write_distilled(tmp_path)
    shown = examples.read_examples(tmp_path, "rded_ipc10", "rded_ipc10")
    indices = [0, 2, 4]
    np.testing.assert_array_equal(shown.labels, [0, 1, 2])
    np.testing.assert_allclose(shown.images, dataset.images[indices], atol=1e-6)
    assert shown.grid.shape == (3 * 34 + 2, 2 * 34 + 2, 3)  # tiles of 32, and lines
    tile = np.rint(dataset.images[3] * 255).repeat(4, axis=0).repeat(4, axis=1)
    np.testing.assert_array_equal(shown.grid[36:68, 36:68], tile)
    np.testing.assert_allclose(
        shown.probabilities, softmax(logits[0, indices]), rtol=1e-12
    )
    data, normalization = train_data(dataset, 3)
    spec = AugmentSpec(flip=True, pad_crop=1)
    view_zero = AugmentedViews(spec, normalization).images(data, 0, jnp.arange(6))
    pixels = dataset.preprocess.invert(np.asarray(view_zero))[indices]
    np.testing.assert_allclose(shown.views, np.clip(pixels, 0, 1), atol=1e-6)
    assert np.abs(shown.views - shown.images).max() > 0.1


def test_examples_without_stored_labels(tmp_path):
    write_distilled(tmp_path)
    shutil.rmtree(tmp_path / "soft_labels")
    shown = examples.read_examples(tmp_path, "rded_ipc10", "rded_ipc10")
    assert shown.views is None
    assert shown.probabilities is None
    assert examples.read_examples(tmp_path, "random_ipc10", "rded_ipc10") is None


@pytest.mark.parametrize("format_name", ["float16", "int8", "top2"])
def test_examples_are_looked_up_where_the_rows_say(format_name, tmp_path):
    _, logits = write_distilled(tmp_path)
    directory = tmp_path / "soft_labels" / "rded_ipc10_conv3_v2"
    (tmp_path / "soft_labels" / "rded_ipc10").rename(directory)
    shutil.rmtree(directory / "logits")
    place = tmp_path / "elsewhere"
    store = open_store(
        place, views=2, num_images=6, num_classes=3, codec=get_codec(format_name)
    )
    store.write(0, 0, logits[0])
    record = {**FINISHED_LABELS, "format": format_name, "store": str(place)}
    (directory / "done.json").write_text(json.dumps(record))
    shown = examples.read_examples(tmp_path, "rded_ipc10", directory.name)
    expected = softmax(store.read(0)[[0, 2, 4]])
    np.testing.assert_allclose(shown.probabilities, expected, rtol=1e-12)


def test_soft_labels_that_cannot_be_read_do_not_stop_the_report(tmp_path):
    write_distilled(tmp_path)
    shutil.rmtree(tmp_path / "soft_labels" / "rded_ipc10" / "logits" / "c" / "0")
    shown = examples.read_examples(tmp_path, "rded_ipc10", "rded_ipc10")
    assert "soft labels of view 0" in shown.problem


@pytest.mark.parametrize("file", ["done.json", "recipe.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"7", b"\xff", b"{", b"[" * 100_000, b'{"store": 7}'],
    ids=lambda content: str(content)[:12],
)
def test_a_bad_record_of_soft_labels_does_not_stop_the_report(tmp_path, file, content):
    write_distilled(tmp_path)
    (tmp_path / "soft_labels" / "rded_ipc10" / file).write_bytes(content)
    shown = examples.read_examples(tmp_path, "rded_ipc10", "rded_ipc10")
    assert shown.problem is not None
    assert shown.images.shape == (3, 8, 8, 3)


def test_to_look_for_soft_labels_makes_none(tmp_path):
    write_distilled(tmp_path)
    victim = tmp_path / "victim"
    record = {**FINISHED_LABELS, "store": str(victim)}
    done = tmp_path / "soft_labels" / "rded_ipc10" / "done.json"
    done.write_text(json.dumps(record))
    shown = examples.read_examples(tmp_path, "rded_ipc10", "rded_ipc10")
    assert f"{victim} cannot be used" in shown.problem
    assert not victim.exists()


def placed(workdir, **fields):
    return {**row("kl", 0, KL[0]), "workdir": workdir, **fields}


def test_every_distilled_dataset_is_shown_once_by_a_name_of_its_own(tmp_path):
    found = []
    for name, dataset in (("one", "digits"), ("two", "folder/of/mine"), ("three", "x")):
        write_distilled(tmp_path / name)
        fields = {"dataset": dataset, "distilled_dir": "rded_ipc10"}
        found += [placed(tmp_path / name, **fields, seed=seed) for seed in range(2)]
    shown, unreadable = examples.read_all_examples(found[:2])
    assert [one.name for one in shown] == ["rded_ipc10"]
    shown, unreadable = examples.read_all_examples(found)
    assert [one.name for one in shown] == [
        "digits_rded_ipc10",
        "folder_of_mine_rded_ipc10",
        "x_rded_ipc10",
    ]
    same = [{**one, "dataset": "digits"} for one in found]
    assert examples.read_all_examples(same)[0][1].name == "digits_rded_ipc10_"
    assert unreadable == []
    assert examples.read_all_examples([placed(tmp_path)]) == ([], [])


@pytest.mark.parametrize("damage", ["distilled.npz", "distilled.json", "link"])
def test_a_distilled_dataset_that_cannot_be_read_is_named(tmp_path, damage):
    workdir = tmp_path / "work"
    write_distilled(workdir)
    directory = workdir / "distilled" / "rded_ipc10"
    if damage == "link":
        directory.rename(tmp_path / "victim")
        directory.symlink_to(tmp_path / "victim")
        with pytest.raises(InputError, match="outside of the work directory"):
            examples.read_examples(workdir, "rded_ipc10", None)
    else:
        (directory / damage).write_bytes(b"\xff")
    shown, (reason,) = examples.read_all_examples(
        [placed(workdir, distilled_dir="rded_ipc10")]
    )
    assert shown == []
    assert reason.startswith("distilled/rded_ipc10: ")
