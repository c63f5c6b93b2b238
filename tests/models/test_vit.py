"""The vision transformer: its tokens, and images of whole patches."""

import jax
import numpy as np
import pytest

from gift_jax.models import create_model
from gift_jax.models.vit import VisionTransformer
from gift_jax.runtime.errors import InputError


def test_only_their_places_tell_the_patches_apart():
    model = VisionTransformer(
        width=8, depth=1, heads=2, patch_size=2, num_classes=3, image_size=4
    )
    images = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    assert variables["params"]["pos_embed"].shape == (1, 4 + 1, 8)
    swapped = np.concatenate([images[:, 2:], images[:, :2]], 1)
    apply = jax.jit(model.apply)
    assert np.abs(apply(variables, images) - apply(variables, swapped)).max() > 1e-4
    variables["params"]["pos_embed"] *= 0
    np.testing.assert_allclose(
        apply(variables, images), apply(variables, swapped), atol=1e-5
    )


def test_images_of_broken_patches_are_refused():
    with pytest.raises(InputError, match="multiple of it, got 40"):
        create_model("vit_s_16", num_classes=3, image_size=40)
