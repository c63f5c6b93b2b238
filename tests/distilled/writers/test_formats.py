"""Tests of `gift_jax.distilled.writers.formats`."""

import dataclasses

import jax
import numpy as np
import pytest

from gift_jax import augment, distilled, losses, models, optimizers
from gift_jax.data import info
from gift_jax.distilled import read_distilled
from gift_jax.runtime import devices
from gift_jax.runtime.errors import InputError
from gift_jax.soft_labels import views
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.train import fit, step
from tests.distilled.writers.samples import (
    LABELS,
    TINY_CIFAR,
    TRAIN_IMAGES,
    by_class,
    pixel_dataset,
    whitened_dataset,
    written,
)

ARRAYS = ("images", "labels", "soft_labels")


@pytest.mark.parametrize("format", ["gift", "npz", "parquet", "folders"])
def test_round_trip_of_8_bits(tmp_path, format):
    dataset = pixel_dataset()
    read = read_distilled(written(tmp_path, dataset, format))
    assert read.metadata.dataset == "cifar10"
    assert read.preprocess == info.CIFAR
    if format == "folders":
        np.testing.assert_array_equal(read.images, by_class(dataset))
        np.testing.assert_array_equal(read.labels, np.sort(LABELS))
    else:
        np.testing.assert_array_equal(read.images, dataset.images)
        np.testing.assert_array_equal(read.labels, LABELS)


@pytest.mark.parametrize("format", ["gift", "npz"])
def test_round_trip_of_floats(tmp_path, format):
    images = TRAIN_IMAGES[:20] / np.float32(230) - np.float32(0.05)
    read = read_distilled(written(tmp_path, pixel_dataset(images), format))
    np.testing.assert_array_equal(read.images, images)


def test_greyscale(tmp_path):
    images = TRAIN_IMAGES[:20, ..., :1].astype(np.float32) / 255
    dataset = distilled.DistilledDataset(
        images=images,
        labels=LABELS,
        preprocess=info.DIGITS,
        metadata=distilled.Metadata("digits", 10, "random", "test"),
    )
    for format in ("gift", "npz", "parquet", "folders"):
        path = tmp_path / f"{format}.{'pt' if format == 'gift' else format}"
        distilled.write_distilled(dataset, path, format)
        source = "folders" if format == "folders" else None
        read = read_distilled(path, source, dataset="digits")
        expected = by_class(dataset) if source else images
        np.testing.assert_array_equal(read.images, expected)


@pytest.mark.parametrize("format", ["gift", "npz"])
def test_other_whitened_images_are_written_as_pixels(tmp_path, format):
    dataset = whitened_dataset("rfad")
    read = read_distilled(written(tmp_path, dataset, format))
    assert not read.is_whitened
    np.testing.assert_allclose(read.images, TRAIN_IMAGES[:20] / 255, atol=1e-5)
    np.testing.assert_array_equal(read.labels, dataset.labels)


@pytest.mark.parametrize("format", ["gift", "npz"])
def test_what_could_not_be_read_back_is_not_written(tmp_path, format):
    dataset = whitened_dataset("rfad")
    learnt = 20 * dataset.pixels() - 10
    learnt = dataclasses.replace(dataset, images=dataset.preprocess.apply(learnt))
    with pytest.raises(ValueError, match=r"un-whitened, 98%.*save_distilled"):
        distilled.write_distilled(learnt, tmp_path / "x", format)
    assert not list(tmp_path.iterdir())
    distilled.save_distilled(learnt, tmp_path / "own")
    read = read_distilled(tmp_path / "own")
    np.testing.assert_array_equal(read.images, learnt.images)


@pytest.mark.parametrize("format", ["gift", "npz"])
def test_pixels_that_stick_out_are_not_called_whitened(tmp_path, format):
    images = np.random.default_rng(0).normal(0.1, 0.6, (20, 4, 4, 3))
    dataset = dataclasses.replace(
        pixel_dataset(), images=images.astype(np.float32), are_pixels=True
    )
    with pytest.raises(InputError, match=r"^98%.*holds them as they are"):
        distilled.write_distilled(dataset, tmp_path / "x", format)


def trained_logits(dataset, soft_labels, shown):
    """What a student answers to `shown` after a training on a distilled dataset."""
    data, normalization = views.train_data(dataset, seed=1)
    size = dataset.images.shape[1]
    model = models.create_model(
        "conv1", num_classes=10, image_size=size, width=4, axis_name=devices.AXIS
    )
    state = step.create_train_state(
        model,
        optimizers.OptimizerSpec("sgd", 0.1),
        dataset.images.shape[1:],
        epochs=2,
        steps_per_epoch=2,
        init_key=jax.random.key(2),
        dropout_key=jax.random.key(3),
    )
    fitted = fit.fit(
        state,
        data,
        None if soft_labels is None else FixedSoftLabels(soft_labels, views=2),
        loss=losses.get_loss("ce" if soft_labels is None else "kl"),
        view_images=views.AugmentedViews(augment.AugmentSpec(flip=True), normalization),
        epochs=2,
        batch_size=10,
        order_key=jax.random.key(4),
        devices=jax.devices()[:1],
    )
    return np.asarray(model.apply(fitted.state.variables, shown, train=False))


# JPEG is not exact. Class folders have the images in the order of their classes.
@pytest.mark.parametrize("format", ["gift", "npz", "parquet", "folders", "datm"])
def test_what_is_read_is_trained_on_as_what_was_written(tmp_path, format):
    if format == "datm":
        dataset, options = whitened_dataset("datm"), {"train_images": TRAIN_IMAGES}
    else:
        dataset, options = pixel_dataset(), {}
        order = np.argsort(LABELS, kind="stable")
        arrays = {name: getattr(dataset, name)[order] for name in ARRAYS}
        dataset = dataclasses.replace(dataset, **arrays)
    path = written(tmp_path, dataset, format)
    read = read_distilled(path, dataset=TINY_CIFAR, **options)
    # The others have no soft labels.
    has_soft = format in ("npz", "datm")
    kept = dataset.soft_labels if has_soft else None
    pairs = [(read.inputs(), dataset.inputs()), (read.labels, dataset.labels)]
    if has_soft:
        pairs.append((read.soft_labels, kept))
    else:
        assert read.soft_labels is None
    for found, expected in pairs:
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    if format not in ("gift", "datm"):
        return
    # And a student comes to the very same numbers.
    expected = trained_logits(dataset, kept, dataset.inputs())
    found = trained_logits(read, read.soft_labels, dataset.inputs())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("format", distilled.WRITERS)
def test_nothing_is_overwritten(tmp_path, format):
    path = tmp_path / "x"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        distilled.write_distilled(pixel_dataset(), path, format)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("format", distilled.WRITERS)
def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch, format):
    real_writer = distilled.WRITERS[format]

    def broken(dataset, path):
        real_writer(dataset, path)
        raise OSError("disk full")

    monkeypatch.setitem(distilled.WRITERS, format, broken)
    with pytest.raises(OSError, match="disk full"):
        distilled.write_distilled(pixel_dataset(), tmp_path / "x", format)
    assert not list(tmp_path.iterdir())


def test_unknown_format(tmp_path):
    with pytest.raises(
        ValueError, match="unknown format 'zip'; expected one of gift, folders"
    ):
        distilled.write_distilled(pixel_dataset(), tmp_path / "x", "zip")
