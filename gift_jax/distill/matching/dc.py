"""DC: gradients of a class are those of its real images.

Reference: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", ICLR
2021, https://arxiv.org/abs/2006.05929, and `main.py` and `utils.py` of its official
code. One thing differs: images begin as real ones, which the authors find to give
results similar to those of their default, noise.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gift_jax.data.info import DatasetInfo
from gift_jax.distill.matching import base

_NETWORK_RATE, _NETWORK_BATCH = 0.01, 256
_ORDER = 2  # purpose of a key
# `get_loops`: images per class, steps of the images in one network, and epochs that the
# network is trained on them between these steps.
_LOOPS = ((1, 1, 1), (10, 10, 50), (20, 20, 25), (30, 30, 20), (40, 40, 15))
_MANY = (50, 10)


@dataclasses.dataclass(frozen=True)
class Dc(base.Matching):
    """Matches gradients, in networks that are trained on the images meanwhile.

    Attributes:
      ipc: Images per class, at least 1; they begin as real images.
      iterations: Networks; 1,000 in the official code.
      learning_rate: Learning rate of SGD with momentum 0.5; 0.1 in the official code.
      batch_size: Real images of a class in a step, see `base.Matching`.
      width: Width of the ConvNet.
    """

    iterations: int = 1_000
    learning_rate: float = 0.1

    @property
    def loops(self) -> tuple[int, int]:
        """Steps of the images in one network, and epochs between them.

        An IPC between the official ones has those of the next larger one.
        """
        return next((loops[1:] for loops in _LOOPS if self.ipc <= loops[0]), _MANY)

    @property
    def steps(self) -> int:
        """Steps of the images in one iteration."""
        return self.loops[0]

    def memory(self, info: DatasetInfo) -> Any:
        """The variables of the network."""
        return base.draw_network(self.network(info), jax.random.key(0), info)

    def make_step(self, info: DatasetInfo) -> Any:
        """One step of the images, then some epochs of the network."""
        model, (steps, epochs) = self.network(info), self.loops
        # XLA runs gradients of convolutions inside of a loop slowly on CPUs.
        unroll = jax.default_backend() == "cpu"

        def step(
            state: base.State, real: jax.Array, key: jax.Array, done: jax.Array
        ) -> tuple[base.State, jax.Array]:
            drawn = base.draw_network(model, key, info)
            network = jax.tree.map(
                lambda new, old: jnp.where(done % steps == 0, new, old),
                drawn,
                state.memory,
            )
            real = base.normalized(info, real)
            labels = jnp.arange(len(real))

            def loss(images: jax.Array) -> jax.Array:
                def add_class(total: jax.Array, of_class: Any) -> tuple[jax.Array, Any]:
                    images, real, label = of_class
                    found = gradients(model, network, images, label)
                    expected = gradients(model, network, real, label)
                    return total + distance(found, expected), None

                images = images.reshape(len(real), -1, *images.shape[1:])
                total, _ = jax.lax.scan(
                    add_class, jnp.float32(0), (images, real, labels), unroll=unroll
                )
                return total

            moved, value = self.descend(state, loss)
            of_image = jnp.repeat(labels, self.ipc)
            if steps > 1:  # after the last step another network is drawn
                left = jnp.where((done + 1) % steps == 0, 0, epochs)
                network = train(model, network, moved.images, of_image, key, left)
            return moved._replace(memory=network), value / len(real)

        return step


def _cross_entropy(
    variables: Any, model: nn.Module, images: jax.Array, labels: jax.Array
) -> jax.Array:
    logits = jnp.asarray(model.apply(variables, images, train=False))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def gradients(
    model: nn.Module, variables: Any, images: jax.Array, label: jax.Array
) -> Any:
    """Parameter gradients of the cross-entropy of (B, S, S, C) images, one class."""
    labels = jnp.broadcast_to(label, (len(images),))
    return jax.grad(_cross_entropy)(variables, model, images, labels)


def distance(found: Any, expected: Any) -> jax.Array:
    """One minus the cosine for every output of every layer, summed.

    Args:
      found: Gradients, a tree of Flax parameters.
      expected: Gradients like `found`; constants.

    Returns:
      Scalar. Vectors, such as biases, are not compared, as in the official
      `distance_wb`.
    """
    expected = jax.lax.stop_gradient(expected)
    total = jnp.float32(0)
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        if ours.ndim > 1:  # (..., outputs): kernels of convolutions, dense layers
            ours, theirs = (g.reshape(-1, g.shape[-1]) for g in (ours, theirs))
            lengths = _norms(ours) * _norms(theirs)
            total += (1 - (ours * theirs).sum(0) / (lengths + 1e-6)).sum()
    return total


def _norms(columns: jax.Array) -> jax.Array:
    return jax.vmap(lambda column: optax.safe_norm(column, 0.0), 1)(columns)


def train(
    model: nn.Module,
    variables: Any,
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    epochs: int | jax.Array,
) -> Any:
    """Trains a network on the images, as they are, by SGD without momentum.

    Args:
      model: The network.
      variables: Variables of the network.
      images: (N, S, S, C) float32, normalised.
      labels: (N,) int32.
      key: Typed key of the order of the images.
      epochs: How many times all images are seen.

    Returns:
      Variables after these epochs.
    """
    batches = np.array_split(np.arange(len(images)), -(-len(images) // _NETWORK_BATCH))

    def epoch(number: jax.Array, variables: Any) -> Any:
        order_key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), number)
        order = jax.random.permutation(order_key, len(images))
        for batch in batches:
            chosen = order[batch]
            gradient = jax.grad(_cross_entropy)(
                variables, model, images[chosen], labels[chosen]
            )
            variables = jax.tree.map(
                lambda weight, slope: weight - _NETWORK_RATE * slope,
                variables,
                gradient,
            )
        return variables

    return jax.lax.fori_loop(0, epochs, epoch, variables)
