"""Statistics of the train split, against NumPy in float64."""

import jax
import numpy as np
import pytest

from gift_jax.distill import Gvbsm
from gift_jax.distill.recovery import real_statistics
from gift_jax.runtime.errors import InputError
from tests.distill.recovery import networks


def test_statistics_of_other_layers_are_refused():
    teacher, info = networks.teacher(), networks.INFO
    real = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape), real_statistics.shapes(teacher, info)
    )
    real_statistics.check([tuple(real)], [teacher], info)
    with pytest.raises(InputError, match="of 2 networks, expected those of conv2"):
        real_statistics.check([real, real], [teacher], info)
    with pytest.raises(InputError, match="has None as shapes of layer 3 of conv2"):
        real_statistics.check([real[:3]], [teacher], info)
    wider = networks.teacher(width=6)
    with pytest.raises(InputError, match=r"mean=\(4,\).*expected.*mean=\(6,\)"):
        Gvbsm(1).make(networks.data(), teacher=wider, seed=0, real=[real])


def test_sides_and_views_of_the_official_code():
    assert [real_statistics.patch_side(s) for s in (32, 64, 224)] == [4, 4, 16]
    cifar, tiny, imagenet = map(real_statistics.views, (32, 64, 224))
    assert cifar.label == "pad_crop=4-flip=True"
    assert tiny.label == "pad_crop=8-flip=True"
    assert imagenet.label == "resized_crop=0.08-flip=True"


def moments(x, axes):
    return x.mean(axes), x.var(axes)


def patches(x):
    """(B, patches, ...) of 4x4 pixels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 4, 4, width // 4, 4, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, 16 * channels)


@pytest.fixture(scope="module")
def measured():
    teacher, data = networks.teacher(), networks.data(30)
    seen = []
    return teacher, data, real_statistics.measure(teacher, data, seen.append), seen


def test_batches_and_classes_are_averaged(measured):
    teacher, data, found, seen = measured
    assert seen == [64, 26]
    order = np.random.default_rng(0).permutation(90)
    pixels = real_statistics.augmented(data.train.all_images(), np.arange(90))
    inputs = networks.NORMALIZATION.apply(np.asarray(pixels))
    _, of_convs, of_norms = networks.conv_net(teacher.variables, inputs)
    layers = [x for pair in zip(of_convs, of_norms, strict=True) for x in pair]
    batches = ((order[:64], 64 / 90), (order[64:], 26 / 90))
    assert len(found) == 4
    for layer, x in zip(found, layers, strict=True):
        is_conv = any(x is fed for fed in of_convs)
        expected = [
            sum(
                share * np.stack(moments(x[rows], (0, 1, 2))) for rows, share in batches
            )
        ]
        of_image = [np.stack(moments(x, (1, 2)))]
        if is_conv:
            y = patches(x)
            expected.append(
                sum(s * np.stack(moments(y[rows], (0, 2))) for rows, s in batches)
            )
            of_image.append(np.stack(moments(y, 2)))
        assert len(layer.of_batches) == len(layer.of_classes) == len(expected)
        for ours, theirs in zip(layer.of_batches, expected, strict=True):
            np.testing.assert_allclose(np.stack(ours), theirs, rtol=1e-4, atol=1e-5)
        of_class = [
            np.stack([m[:, c::3].mean(1) for c in range(3)], 1) for m in of_image
        ]
        for ours, theirs in zip(layer.of_classes, of_class, strict=True):
            np.testing.assert_allclose(np.stack(ours), theirs, rtol=1e-4, atol=1e-5)


def test_shapes_are_known_without_images(measured):
    teacher, data, found, _ = measured
    shapes = real_statistics.shapes(teacher, data.info)
    assert jax.tree.structure(shapes) == jax.tree.structure(found)
    for shape, array in zip(
        jax.tree.leaves(shapes), jax.tree.leaves(found), strict=True
    ):
        assert shape.shape == array.shape


def test_views_are_those_of_pixels():
    """The border that a crop brings in is black, as before the normalisation."""
    images = np.full((40, 8, 8, 3), 255, np.uint8)
    found = np.asarray(real_statistics.augmented(images, np.arange(40)))
    assert set(np.unique(found)) == {0.0, 1.0}
    assert len(np.unique(found.reshape(40, -1), axis=0)) > 10
