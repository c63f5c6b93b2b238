"""Tests of `gift_jax.report.examples`: images, views and soft labels that are shown."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import augment
from gift_jax.data import preprocess
from gift_jax.distilled.dataset import DistilledDataset, Metadata, save_distilled
from gift_jax.pipeline import labelling
from gift_jax.report import examples
from gift_jax.soft_labels import views
from gift_jax.soft_labels.codecs import get_codec
from gift_jax.soft_labels.store import open_store

FACTS = {"views": 2, "images": 6, "classes": 3, "format": "float16", "store": ""}


def write_distilled(workdir):
    """Random images of three classes and the soft labels of two views of them."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    dataset = DistilledDataset(
        images=pixels.astype(np.float32) / 255,
        labels=np.array([0, 0, 1, 1, 2, 2]),
        metadata=Metadata("digits", 3, "rded", "a test"),
        preprocess=preprocess.Normalization((0.5, 0.4, 0.3), (0.2, 0.2, 0.25)),
    )
    save_distilled(dataset, workdir / "distilled" / "rded_ipc10")
    directory = workdir / "soft_labels" / "rded_ipc10"
    store = open_store(directory / "logits", views=2, num_images=6, num_classes=3)
    logits = generator.normal(size=(2, 6, 3)).astype(np.float16)
    for view in range(2):
        store.write(view, 0, logits[view])
    spec = {"flip": True, "pad_crop": 1}
    recipe = {"source": "store", "augment": spec, "seed": 3, "views": 2}
    (directory / "recipe.json").write_text(json.dumps(recipe))
    (directory / "done.json").write_text(json.dumps(FACTS))
    return dataset, logits


def test_examples_show_the_view_that_was_labelled(tmp_path):
    dataset, logits = write_distilled(tmp_path)
    shown = examples.read_examples(tmp_path, "rded_ipc10", "rded_ipc10")
    indices = [0, 2, 4]
    np.testing.assert_array_equal(shown.labels, [0, 1, 2])
    np.testing.assert_allclose(shown.images, dataset.images[indices], atol=1e-6)
    exponentials = np.exp(logits[0, indices].astype(np.float64))
    expected = exponentials / exponentials.sum(-1, keepdims=True)
    np.testing.assert_allclose(shown.probabilities, expected, rtol=1e-12)
    data, normalization = labelling.train_data(dataset, 3)
    spec = augment.AugmentSpec(flip=True, pad_crop=1)
    view_zero = views.AugmentedViews(spec, normalization).images(data, 0, jnp.arange(6))
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
        place,
        views=2,
        num_images=6,
        num_classes=3,
        codec=get_codec(format_name),
    )
    store.write(0, 0, logits[0])
    facts = {**FACTS, "format": format_name, "store": str(place)}
    (directory / "done.json").write_text(json.dumps(facts))
    shown = examples.read_examples(tmp_path, "rded_ipc10", directory.name)
    exponentials = np.exp(store.read(0)[[0, 2, 4]].astype(np.float64))
    expected = exponentials / exponentials.sum(-1, keepdims=True)
    np.testing.assert_allclose(shown.probabilities, expected, rtol=1e-12)


def test_soft_labels_that_cannot_be_read_do_not_stop_the_report(tmp_path):
    write_distilled(tmp_path)
    shutil.rmtree(tmp_path / "soft_labels" / "rded_ipc10" / "logits" / "c" / "0")
    shown = examples.read_examples(tmp_path, "rded_ipc10", "rded_ipc10")
    assert "soft labels of view 0" in shown.problem
