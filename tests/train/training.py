"""Small trainings for the tests of this room."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import augment, losses, models, optimizers
from gift_jax.data import preprocess
from gift_jax.runtime.devices import AXIS
from gift_jax.soft_labels import views
from gift_jax.soft_labels.fixed import FixedSoftLabels
from gift_jax.train.step import TrainState, create_train_state

NUM_CLASSES = 4
SIDE = 8
NORMALIZATION = preprocess.Normalization((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
# The whole of DiffAug takes much longer to compile, and is tested on its own.
SPEC = augment.AugmentSpec(diffaug="flip_crop")
VIEW_IMAGES = views.AugmentedViews(SPEC, NORMALIZATION)
GIFT, CE = losses.get_loss("gift"), losses.get_loss("ce")


def make_data(num_images: int = 40) -> views.TrainData:
    rng = np.random.default_rng(0)
    shape = (num_images, SIDE, SIDE, 3)
    return views.TrainData(
        images=jnp.asarray(rng.integers(0, 256, shape, dtype=np.uint8)),
        labels=jnp.asarray(np.arange(num_images) % NUM_CLASSES, jnp.int32),
        view_key=jax.random.key(1),
    )


def make_soft_labels(num_images: int = 40, num_views: int = 3) -> FixedSoftLabels:
    logits = np.random.default_rng(1).normal(size=(num_images, NUM_CLASSES))
    return FixedSoftLabels(logits.astype(np.float16), num_views)


@functools.cache
def make_model(**options):
    options = {"name": "conv1", "width": 4, **options}
    return models.create_model(
        num_classes=NUM_CLASSES, image_size=SIDE, axis_name=AXIS, **options
    )


def make_state(
    model=None,
    *,
    optimizer: str = "adamw",
    epochs: int = 4,
    steps: int = 3,
    seed: int = 3,
    learning_rate: float | None = None,
) -> TrainState:
    return create_train_state(
        model or make_model(),
        optimizers.OptimizerSpec(optimizer, learning_rate),
        (SIDE, SIDE, 3),
        epochs=epochs,
        steps_per_epoch=steps,
        init_key=jax.random.key(seed),
        dropout_key=jax.random.key(2),
    )


def assert_trees_equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_same_weights(state, other):
    """Equal to rounding.

    A convolution's bias before batch norm has a gradient of zero; Adam blows up its
    rounding errors, so these biases are left out.
    """
    kernels, other_kernels = (
        {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(s.params)
            if leaf.ndim > 1
        }
        for s in (state, other)
    )
    assert kernels.keys() == other_kernels.keys()
    for name in kernels:
        np.testing.assert_allclose(
            kernels[name], other_kernels[name], rtol=0, atol=1e-4, err_msg=name
        )
