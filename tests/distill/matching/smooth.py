"""A smooth network, and what is learnt by matching one of its trajectories."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gift_jax import models
from gift_jax.distill.matching import experts
from gift_jax.distill.matching.trajectories import Learnt, Part, matching_loss
from tests.distill.recovery import networks


class Smooth(nn.Module):
    """Without ReLU, of which gradients jump, so that differences tell them."""

    @nn.compact
    def __call__(self, images, *, train):
        hidden = nn.tanh(nn.Dense(8)(images.reshape(len(images), -1)))
        return nn.Dense(3)(hidden)


MODEL = Smooth()
INFO = networks.INFO
unflatten = experts.unflatten(MODEL, INFO)
loss = jax.jit(functools.partial(matching_loss, model=MODEL, unflatten=unflatten))
loss_and_gradient = jax.jit(jax.value_and_grad(loss))


def augment(key, images, *, alike):
    """Stands for DSA, which is compiled long: every step has a brightness."""
    assert not alike
    return (0.5 + jax.random.uniform(key)) * images


def trained(learnt, part):
    """The student without a scan, without `jax.checkpoint`, on a tree of weights."""

    def loss(variables, images, labels):
        logits = MODEL.apply(variables, images, train=False)
        targets = jnp.exp(labels) / jnp.exp(labels).sum(-1, keepdims=True)
        log = logits - jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
        return -(targets * log).sum() / len(images)

    weights = unflatten(part.start)
    keys = jax.random.split(part.key, len(part.batches))
    for key, batch in zip(keys, part.batches, strict=True):
        images = augment(key, learnt.images[batch], alike=False)
        gradient = jax.grad(loss)(weights, images, learnt.labels[batch])
        weights = jax.tree.map(lambda w, g: w - learnt.rate * g, weights, gradient)
    return weights


@functools.cache
def case():
    """Something to learn, and a target a little beyond where it leads."""
    rng = np.random.default_rng(0)
    variables = models.init_variables(MODEL, jax.random.key(0), image_size=8)
    learnt = Learnt(
        jnp.asarray(rng.normal(size=(6, 8, 8, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=(6, 3)), jnp.float32),
        jnp.float32(0.1),
    )
    batches = np.array([[0, 3, 5], [1, 2, 4], [5, 1, 0]], np.int32)
    start = experts.flat(variables["params"])
    part = Part(start, start, batches, jax.random.key(0))
    way = experts.flat(trained(learnt, part)) - start
    noise = 0.3 * np.std(way) * rng.normal(size=way.shape)
    return learnt, part._replace(target=np.float32(start + 1.5 * way + noise))
