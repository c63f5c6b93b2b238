"""The ConvNet against golden values of the official code."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.models import create_model, init_variables
from gift_jax.models.convnet import ConvNet
from gift_jax.torch_io.torch_import import import_torch

FIXTURES = Path(__file__).parents[1] / "fixtures"


def golden_convnet(norm):
    """(golden values, model, variables) of a ConvNet-3 of the official code."""
    golden = np.load(FIXTURES / f"convnet_{norm}.npz")
    state = {k: golden[k] for k in golden if k.startswith(("layers.", "classifier."))}
    options = {"num_classes": 10, "image_size": 32, "width": 32, "norm": norm}
    model = create_model("conv3", **options)
    return golden, model, import_torch(state, model="conv3", **options)


def nhwc(images):
    return images.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_convnet_evaluates_as_the_official_code(norm):
    golden, model, variables = golden_convnet(norm)
    logits = jax.jit(model.apply)(variables, nhwc(golden["images"]))
    np.testing.assert_allclose(logits, golden["eval_logits"], atol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_convnet_trains_as_the_official_code(norm):
    golden, model, variables = golden_convnet(norm)
    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    logits, _ = train(variables, nhwc(golden["images"]))
    np.testing.assert_allclose(logits, golden["train_logits"], atol=1e-4)


def test_running_statistics_are_pytorchs_up_to_the_unbiased_factor():
    golden, model, variables = golden_convnet("batch")
    images = nhwc(golden["images"])
    train = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    _, updates = train(variables, images)
    for i in range(3):
        # The block works on images halved i times.
        n = images.shape[0] * (32 >> i) ** 2
        after = updates["batch_stats"][f"norm{i}"]
        name = f"layers.norm.{i}.running"
        np.testing.assert_allclose(
            after["mean"], golden[f"after_{name}_mean"], rtol=1e-5, atol=1e-6
        )
        old = 0.9 * golden[f"{name}_var"]
        np.testing.assert_allclose(
            (after["var"] - old) * n / (n - 1),
            golden[f"after_{name}_var"] - old,
            rtol=1e-4,
            atol=1e-6,
        )


def test_bfloat16_is_near_float32():
    golden, model, variables = golden_convnet("batch")
    rough = model.clone(dtype=jnp.bfloat16)
    logits = jax.jit(rough.apply)(variables, nhwc(golden["images"]))
    difference = np.abs(logits - golden["eval_logits"]).max()
    assert 1e-4 < difference / golden["eval_logits"].std() < 0.05


def test_axis_name_gives_the_training_step_of_the_whole_batch():
    devices = jax.devices()[:4]
    if len(devices) < 4:
        pytest.skip("needs 4 devices")
    network = partial(ConvNet, depth=2, width=8, num_classes=5, image_size=8)
    variables = init_variables(network(), jax.random.key(0), image_size=8)
    generator = np.random.default_rng(0)
    # The devices get images of different mean, so that their own statistics differ.
    means = np.arange(4.0).reshape(4, 1, 1, 1, 1)
    images = generator.normal(means, size=(4, 2, 8, 8, 3)).astype(np.float32)
    targets = generator.normal(size=(4, 2, 5)).astype(np.float32)

    def step(model, images, targets):
        """Logits, batch statistics and gradients of one batch."""

        def loss(params):
            logits, updates = model.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean((logits - targets) ** 2), (logits, updates)

        gradients, (logits, updates) = jax.grad(loss, has_aux=True)(variables["params"])
        return logits, updates["batch_stats"], gradients

    def mapped_step(model, images, targets):
        logits, batch_stats, gradients = step(model, images, targets)
        return logits, batch_stats, jax.lax.pmean(gradients, "batch")

    def run_mapped(model):
        mapped = jax.pmap(partial(mapped_step, model), "batch", devices=devices)
        return jax.device_get(jax.block_until_ready(mapped(images, targets)))

    logits, batch_stats, gradients = jax.device_get(
        jax.jit(partial(step, network()))(
            images.reshape(8, 8, 8, 3), targets.reshape(8, 5)
        )
    )
    mapped_logits, mapped_stats, mapped_gradients = run_mapped(
        network(axis_name="batch")
    )
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    close(mapped_logits.reshape(8, 5), logits, atol=1e-4)
    for device in range(4):
        jax.tree.map(lambda a, b, i=device: close(a[i], b), mapped_stats, batch_stats)
    jax.tree.map(lambda a, b: close(a[0], b), mapped_gradients, gradients)

    local_logits, *_ = run_mapped(network())
    assert np.abs(local_logits.reshape(8, 5) - logits).max() > 1e-2


def test_convnet_refuses_images_of_another_size():
    model = create_model("conv3", num_classes=10, image_size=32)
    with pytest.raises(ValueError, match=r"image_size=32.*\(2, 64, 64, 3\)"):
        model.init(jax.random.key(0), jnp.zeros((2, 64, 64, 3)))
