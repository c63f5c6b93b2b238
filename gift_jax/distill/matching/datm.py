"""DATM: training on the images moves weights as the experts' training moved them.

Reference: Guo et al., "Towards Lossless Dataset Distillation via Difficulty-Aligned
Trajectory Matching", ICLR 2024, https://arxiv.org/abs/2310.05773; `distill/DATM.py`,
`configs/*/ConvIN` and `utils/cfg.py` of https://github.com/NUS-HPC-AI-Lab/DATM. Three
things differ, besides those of `experts`: the images after the last iteration are
returned, where the official code returns those of the best test accuracy on the way;
experts are drawn at random, where they come in turn there; and CIFAR-100 at IPC 50
begins, as all others do, with images that are classified correctly.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gift_jax import streams
from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Preprocess, Whitening
from gift_jax.data.real import RealDataset
from gift_jax.distill import base
from gift_jax.distill.matching import experts as experts_lib
from gift_jax.distill.matching.experts import Experts, Trajectory
from gift_jax.distill.matching.trajectories import Learnt, Part, matching_loss
from gift_jax.distill.unfinished import Unfinished
from gift_jax.distilled import DistilledDataset, zca
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import Teacher

_MOMENTUM = 0.5  # of the SGD on images and learning rate; `DATM.py`
_LABEL_MOMENTUM = 0.9  # of the SGD on labels, `Momentum_y`
_BATCH = 256  # images classified at once when the first ones are chosen, `DATM.py`


class Constants(NamedTuple):
    """What the official configs set by dataset and IPC; options have these names.

    Attributes:
      start_epochs: `min_start_epoch`, `current_max_start_epoch`, `max_start_epoch`:
        a start lies in [lower, upper), and upper rises from the second to the third.
      expansion_end: Iteration by which upper has risen, `expansion_end_epoch`.
      learning_rate: Learning rate of the images, `lr_img`.
      lr_y: Learning rate of the labels.
      syn_steps: Steps on the images in one iteration.
      batch_size: Images in a step, `batch_syn`.
      expert_epochs: Epochs from the start of a trajectory's part to its end.
      lr_lr: Learning rate of the learning rate.
      threshold: Loss above which nothing is learnt.
    """

    start_epochs: tuple[int, ...]
    expansion_end: int
    learning_rate: float
    lr_y: float
    syn_steps: int = 80
    batch_size: int = 1000
    expert_epochs: int = 2
    lr_lr: float = 1e-5
    threshold: float = 1.0


# Constants by IPC, from `configs/{CIFAR-10,CIFAR-100,TinyImageNet}/ConvIN/IPC*.yaml`.
# Where `Sequential_Generation` is off, upper is the maximum from the beginning.
_CIFAR10 = {
    1: Constants((0, 4, 4), 1, 100.0, 5.0, lr_lr=1e-7, threshold=1.1),
    10: Constants((0, 10, 20), 1000, 100.0, 2.0),
    50: Constants((0, 20, 40), 2000, 1000.0, 2.0),
    500: Constants((40, 60, 60), 1, 50.0, 10.0, syn_steps=40),
    1000: Constants((40, 60, 60), 1, 50.0, 10.0, syn_steps=100),
}
_CIFAR100 = {
    1: Constants((0, 10, 20), 1000, 1000.0, 10.0, syn_steps=40, expert_epochs=3),
    10: Constants((0, 30, 50), 2000, 1000.0, 10.0),
    50: Constants((20, 70, 70), 1, 1000.0, 10.0),
    100: Constants((30, 70, 70), 1, 50.0, 10.0),
}
_TINY = {
    1: Constants((0, 15, 20), 2000, 1e4, 10.0, syn_steps=40, lr_lr=1e-4),
    10: Constants(
        (10, 50, 50), 1, 100.0, 10.0, syn_steps=40, batch_size=500, lr_lr=1e-4
    ),
    50: Constants((40, 70, 70), 1, 100.0, 10.0, syn_steps=20, lr_lr=1e-4),
}


class State(NamedTuple):
    """What is distilled, and the state of its optimizer."""

    learnt: Learnt
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Datm:
    """Matches trajectories; images, soft labels and a learning rate are learnt.

    Zero, or (), stands for the official value of dataset and IPC, see `Constants`.

    Attributes:
      ipc: Images per class, at least 1; they begin as real images.
      iterations: Parts of trajectories that are matched; 10,000 in all configs.
      experts: Number of networks trained on the real images; 100 in the README.
      epochs: Epochs of each of them; 100 in the README.
      lr_teacher: Learning rate of their plain SGD in batches of 256, and the start of
        the learnt learning rate; 0.01 in README and configs.
      width: Width of the ConvNet.
      zca: Whether images are whitened.
      start_epochs: Lower bound, first and last upper bound of the epoch that a part
        begins at.
      expansion_end: See `Constants`, as for the remaining options.
      expert_epochs: See `Constants`.
      syn_steps: See `Constants`.
      batch_size: See `Constants`.
      learning_rate: See `Constants`.
      lr_y: See `Constants`.
      lr_lr: See `Constants`.

    Raises:
      InputError: an option is negative, or of a wrong type.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"train_images", "experts"})
    resumable: ClassVar[bool] = True

    ipc: int
    iterations: int = 10_000
    experts: int = 100
    epochs: int = 100
    lr_teacher: float = 0.01
    width: int = 128
    zca: bool = True
    start_epochs: tuple[int, ...] = ()
    expansion_end: int = 0
    expert_epochs: int = 0
    syn_steps: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    lr_y: float = 0.0
    lr_lr: float = 0.0

    def __post_init__(self) -> None:
        """Checks the options."""
        whole = ("ipc", "iterations", "experts", "epochs", "width")
        base.check_options(self, positive=whole)
        bounds = self.start_epochs
        if bounds and not (
            len(bounds) == 3
            and all(type(bound) is int for bound in bounds)
            and 0 <= bounds[0] < bounds[1] <= bounds[2]
        ):
            raise InputError(
                f"Datm: start_epochs is {bounds!r}, expected three whole numbers: the "
                "lower bound, the first and the last upper bound, which is exclusive"
            )

    def constants(self, info: DatasetInfo) -> Constants:
        """The official constants, or the next larger IPC's, overridden by the options.

        Raises:
          InputError: parts of trajectories would end after the experts' last epoch.
        """
        of_ipc = _TINY if info.image_size > 32 else _CIFAR10
        if info.image_size <= 32 and info.num_classes > 10:
            of_ipc = _CIFAR100
        official = next(
            (of_ipc[ipc] for ipc in of_ipc if self.ipc <= ipc), of_ipc[max(of_ipc)]
        )
        found = base.chosen(self, official)
        last = found.start_epochs[-1] - 1
        if last + found.expert_epochs > self.epochs:
            raise InputError(
                f"Datm: parts of trajectories begin up to epoch {last} and are of "
                f"{found.expert_epochs} epochs, but experts are trained for "
                f"{self.epochs}: set epochs to at least {last + found.expert_epochs}, "
                f"or start_epochs, which is {found.start_epochs}, to earlier ones"
            )
        size = min(found.batch_size, self.ipc * info.num_classes)
        return found._replace(batch_size=size)

    def check(self, data: RealDataset) -> None:
        """Raises InputError as `Matching.check`, `constants` or `zca.fit_kornia` do."""
        base.check_class_sizes(data, self.ipc)
        shape = (len(data.train), *data.info.image_shape)
        # Pixels, and the float32 inputs of the experts.
        base.check_memory(data, of_pixels=5)
        if self.zca:
            try:
                zca.check_shape(shape)
            except InputError as error:
                raise InputError(
                    f"Datm: {error}. distilled.datm.zca=False leaves images as they are"
                ) from error
            base.check_memory(data, besides=8 * math.prod(shape[1:]) ** 2)
        self.experts_of(data.info, seed=0).network(data.info)

    def experts_of(self, info: DatasetInfo, seed: int) -> Experts:
        """The experts to train first. Raises InputError as `constants` does."""
        self.constants(info)
        return Experts(
            self.experts,
            self.epochs,
            self.lr_teacher,
            width=self.width,
            zca=self.zca,
            seed=seed,
        )

    def experts_for(self, data: RealDataset, seed: int) -> Experts:
        """The experts to train first.

        Raises:
          InputError: a class has fewer than `ipc` images, or as for `constants`.
        """
        base.class_members(data, self.ipc)
        return self.experts_of(data.info, seed)

    def make(
        self,
        data: RealDataset,
        *,
        teacher: Teacher | None = None,
        seed: int,
        on_progress: base.OnProgress | None = None,
        directory: pathlib.Path | None = None,
        experts: Sequence[Trajectory] | None = None,
    ) -> DistilledDataset:
        """Makes the images, see `base.Distiller`; progress counts iterations.

        Args:
          data: The real dataset.
          teacher: Not needed.
          seed: Seed of everything random.
          on_progress: Called with the iterations done.
          directory: Directory of an unfinished distillation, to resume it.
          experts: Trajectories of `experts_for`; trained here by default.

        Returns:
          num_classes * ipc images, class by class, with the learnt soft labels and
          learning rate: whitened images, or else float pixels as they were learnt.

        Raises:
          InputError: a class has fewer than `ipc` images, or fewer that an expert
            classifies correctly; or as for `constants`.
        """
        of_experts = self.experts_for(data, seed)
        unfinished = Unfinished(directory)
        unfinished.claim(lambda: base.recipe(self, data, seed))
        with tempfile.TemporaryDirectory() as scratch:
            if experts is None:
                place = directory or pathlib.Path(scratch)
                experts = of_experts.train(data, place / "experts")
            preprocess = of_experts.preprocess(data)
            learnt = self._match(
                data, preprocess, experts, seed, on_progress, unfinished
            )
        images = np.asarray(learnt.images)
        is_whitened = isinstance(preprocess, Whitening)
        return base.distilled_dataset(
            self,
            data,
            [images if is_whitened else preprocess.invert(images)],
            seed=seed,
            preprocess=preprocess,
            soft_labels=np.asarray(learnt.labels),
            learning_rate=float(learnt.rate),
        )

    def _match(
        self,
        data: RealDataset,
        preprocess: Preprocess,
        experts: Sequence[Trajectory],
        seed: int,
        on_progress: base.OnProgress | None,
        unfinished: Unfinished,
    ) -> Learnt:
        constants = self.constants(data.info)
        key = streams.stream_key(seed, streams.Purpose.DISTILLATION)
        start = jax.device_get(self.start(data, preprocess, experts, seed))
        step = jax.jit(self.make_step(data.info), donate_argnums=0)

        def advance(state: State, done: int) -> tuple[State, Any, int]:
            expert, epoch, batches = self.draw(data.info, seed, done)
            part = Part(
                experts[expert][epoch],
                experts[expert][epoch + constants.expert_epochs],
                batches,
                jax.random.fold_in(key, done),
            )
            state, loss = step(state, part)
            rate = jax.device_get(state.learnt.rate)
            return state, {"loss": jax.device_get(loss), "rate": rate}, done + 1

        return unfinished.run(
            "images", start, self.iterations, advance, on_progress
        ).learnt

    def start(
        self,
        data: RealDataset,
        preprocess: Preprocess,
        experts: Sequence[Trajectory],
        seed: int,
    ) -> State:
        """Real images that an expert classifies correctly, with labels by all experts.

        The label of an image is the mean of the logits of all experts, at their last
        epoch, that classify it correctly.
        """
        pixels, info = data.train.all_images(), data.info
        model = self.experts_of(info, seed).network(info)
        unflatten = experts_lib.unflatten(model, info)
        apply = jax.jit(lambda w, x: model.apply(unflatten(w), x, train=False))

        def logits(expert: int, indices: np.ndarray) -> np.ndarray:
            inputs = experts_lib.network_inputs(preprocess, pixels[indices])
            weights, batches = experts[expert][-1], range(0, len(inputs), _BATCH)
            found = [apply(weights, _filled(inputs[s : s + _BATCH])) for s in batches]
            return np.concatenate(found)[: len(inputs)]

        chosen = np.concatenate(
            [
                self._correct(logits, np.random.default_rng([seed, label]), label, of)
                for label, of in enumerate(base.class_members(data, self.ipc))
            ]
        )
        of_experts = np.stack([logits(e, chosen) for e in range(len(experts))])
        labels = np.repeat(np.arange(info.num_classes), self.ipc)
        correct = (of_experts.argmax(-1) == labels)[..., None]
        # In other batches an expert may err by rounding on an image that it chose.
        count = np.maximum(correct.sum(0), 1)
        learnt = Learnt(
            jnp.asarray(experts_lib.network_inputs(preprocess, pixels[chosen])),
            jnp.asarray((of_experts * correct).sum(0) / count),
            jnp.float32(self.lr_teacher),
        )
        return State(learnt, self.optimizer(info).init(learnt))

    def _correct(
        self,
        logits: Callable[[int, np.ndarray], np.ndarray],
        rng: np.random.Generator,
        label: int,
        of_class: np.ndarray,
    ) -> list[int]:
        """Images of a class in a random order, if an expert classifies them correctly.

        As many as `ipc`; where one expert gives fewer, the next is asked.
        """
        order, found = rng.permutation(of_class), dict[int, None]()
        starts = range(0, len(order), _BATCH)
        for expert, start in itertools.product(range(self.experts), starts):
            batch = order[start : start + _BATCH]
            found |= dict.fromkeys(batch[logits(expert, batch).argmax(-1) == label])
            if len(found) >= self.ipc:
                return list(found)[: self.ipc]
        raise InputError(
            f"ipc is {self.ipc}, but of class {label} the experts classify only "
            f"{len(found)} training images correctly after {self.epochs} epochs: train "
            "them longer"
        )

    def draw(
        self, info: DatasetInfo, seed: int, done: int
    ) -> tuple[int, int, np.ndarray]:
        """What one iteration matches.

        Args:
          info: The real dataset.
          seed: Seed of the distillation.
          done: Iterations done before.

        Returns:
          The expert, the epoch that the part begins at, and (syn_steps, batch_size)
          int32 images of the steps: every image once, in a random order, before any
          comes again; the rest of an order that fills no batch is left out.
        """
        constants, rng = self.constants(info), np.random.default_rng([seed, done])
        images, size = self.ipc * info.num_classes, constants.batch_size
        batches = images // size
        orders = [
            rng.permutation(images)[: batches * size].reshape(batches, size)
            for _ in range(-(-constants.syn_steps // batches))
        ]
        lower, upper = constants.start_epochs[0], upper_bound(constants, done)
        return (
            int(rng.integers(self.experts)),
            int(rng.integers(lower, upper)),
            np.concatenate(orders)[: constants.syn_steps].astype(np.int32),
        )

    def optimizer(self, info: DatasetInfo) -> optax.GradientTransformation:
        """Optimizer of `Learnt`."""
        constants = self.constants(info)
        return optax.partition(
            {
                "images": optax.sgd(constants.learning_rate, momentum=_MOMENTUM),
                "labels": optax.sgd(constants.lr_y, momentum=_LABEL_MOMENTUM),
                "rate": optax.sgd(constants.lr_lr, momentum=_MOMENTUM),
            },
            Learnt("images", "labels", "rate"),
        )

    def make_step(
        self, info: DatasetInfo
    ) -> Callable[[State, Part], tuple[State, jax.Array]]:
        """`step(state, part)` -> state, loss; above the threshold the state is kept."""
        model = self.experts_of(info, 0).network(info)
        unflatten = experts_lib.unflatten(model, info)
        loss = functools.partial(matching_loss, model=model, unflatten=unflatten)
        optimizer, threshold = self.optimizer(info), self.constants(info).threshold

        def step(state: State, part: Part) -> tuple[State, jax.Array]:
            value, gradient = jax.value_and_grad(loss)(state.learnt, part)
            updates, memory = optimizer.update(gradient, state.optimizer)
            learnt = optax.apply_updates(state.learnt, updates)
            moved = jax.tree.map(
                lambda new, old: jnp.where(value <= threshold, new, old),
                State(learnt, memory),
                state,
            )
            return moved, value

        return step


def upper_bound(constants: Constants, done: int) -> int:
    """Upper bound of the epoch that a part begins at, exclusive, after `done`."""
    _, first, last = constants.start_epochs
    return min(first + int((last - first) * done / constants.expansion_end), last)


def _filled(images: np.ndarray) -> np.ndarray:
    """A whole batch of images: the first ones are repeated to fill it."""
    return np.resize(images, (_BATCH, *images.shape[1:]))
