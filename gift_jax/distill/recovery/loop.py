"""The loop of all recoveries: gradient steps turn images into what a method wants.

Images are recovered in batches, each by itself and with a key of its own; devices work
on a batch each, and hosts on batches of their own. On accelerators many iterations are
one `lax.scan`; on CPUs the host dispatches each, as XLA runs convolutions inside of a
loop several times slower there.
"""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gift_jax import streams
from gift_jax.data.info import DatasetInfo
from gift_jax.data.preprocess import Normalization
from gift_jax.distill.base import OnProgress
from gift_jax.distill.unfinished import Unfinished
from gift_jax.distilled import preview
from gift_jax.distilled.files import PREVIEW_FILE
from gift_jax.runtime import devices as devices_lib
from gift_jax.runtime import hosts, preemption

# Adam's betas, `recover/data_synthesis.py` of SRe2L and of all methods after it.
_BETAS = (0.5, 0.9)
_SCANNED = 50  # iterations of one scan; it can be stopped between two scans
_PREVIEW = (20, 10)  # classes and images of a class that a preview shows


class Task(NamedTuple):
    """What one iteration is given.

    Attributes:
      key: Typed key of this iteration of this batch.
      iteration: int32 scalar, its number.
      labels: (B,) int32 classes.
    """

    key: jax.Array
    iteration: jax.Array
    labels: jax.Array


# `objective(variables, images, memory, task)` gives the terms of the loss by name,
# weighted, whose sum is minimised, and the memory of the next iteration: any tree of
# arrays. `images` are (B, H, W, C) float32, normalised.
Objective = Callable[[Any, jax.Array, Any, Task], tuple[Mapping[str, jax.Array], Any]]


class Method(NamedTuple):
    """How a batch of images is recovered.

    Attributes:
      objectives: One per teacher; iteration i takes number i modulo their count.
      variables: What each objective is given: the teacher's, and other constants.
      normalization: Normalisation of images while they are recovered.
      iterations: Iterations of every batch.
      learning_rate: Adam's learning rate at first; it falls to zero along a cosine.
      batch_size: Most images of a batch.
      by_class: Whether a batch has whole classes, or as many classes as possible.
      initial: (num_classes * ipc, S, S, C) float32 pixels to start from, class by
        class; None starts from normal noise.
      memory: Makes the memory before the first iteration from a batch's normalised
        images.
    """

    objectives: Sequence[Objective]
    variables: Sequence[Any]
    normalization: Normalization
    iterations: int
    learning_rate: float
    batch_size: int
    by_class: bool = False
    initial: np.ndarray | None = None
    memory: Callable[[jax.Array], Any] = lambda images: ()

    def start(self, images: jax.Array) -> "State":
        """A batch of normalised images before its first iteration."""
        return State(images, _adam(self).init(images), self.memory(images))


class State(NamedTuple):
    """A batch in recovery: normalised images, Adam's state, the method's memory."""

    images: jax.Array
    optimizer: Any
    memory: Any


def recover(
    method: Method,
    info: DatasetInfo,
    *,
    ipc: int,
    seed: int,
    on_progress: OnProgress | None = None,
    unfinished: Unfinished = Unfinished(None),  # noqa: B008
) -> np.ndarray:
    """Recovers `ipc` images of every class; all hosts call it.

    Args:
      method: How the images are recovered.
      info: The real dataset.
      ipc: Images per class.
      seed: Seed of noise and views.
      on_progress: Called after every iteration of this host, or every scan of some,
        with the terms of the loss and, as "images", how many are finished. When it
        raises `PreemptedError`, the state is kept first, and all hosts stop.
      unfinished: Keeps finished batches, states of the others, and a preview.

    Returns:
      (num_classes * ipc, S, S, C) uint8, class by class.

    Raises:
      PreemptedError: raised by `on_progress` of any host.
      UserError: what another host has recovered is not seen here.
    """
    batches = make_batches(info.num_classes, ipc, method)
    labels = np.repeat(np.arange(info.num_classes, dtype=np.int32), ipc)
    shape = info.image_shape
    pixels = np.zeros((len(labels), *shape), np.uint8)
    finished: list[int] = []

    def finish(number: int, images: np.ndarray) -> None:
        pixels[batches[number]] = images
        finished.append(number)

    own = [number for number in range(len(batches)) if unfinished.is_own(number)]
    for number in own:
        images = unfinished.kept(_part(number))
        if images is not None:
            finish(number, images)
    left = [number for number in own if number not in finished]

    @functools.cache
    def advance_on(count: int) -> _Advance:
        """Compiled once for all groups of `count` batches."""
        return _advance(method, jax.local_devices()[:count])

    def recover_group(group: Sequence[int]) -> None:
        def of_all(done: int, total: int, **terms: float) -> None:
            """Reports the progress of all groups, given that of this one."""
            if on_progress is not None:
                ended = group if done == total else []
                images = sum(len(batches[number]) for number in [*finished, *ended])
                done = len(finished) * total + len(group) * done
                on_progress(done, len(own) * total, images=images, **terms)

        state = _recover_group(
            method,
            advance_on(len(group)),
            group,
            [batches[number] for number in group],
            labels,
            shape,
            seed,
            of_all,
            unfinished,
        )
        for number, images in zip(group, state, strict=True):
            unfinished.keep(_part(number), images)
            finish(number, images)
        unfinished.forget(_part(*group))
        if unfinished.directory and hosts.is_primary():
            members = np.sort(np.concatenate([batches[number] for number in finished]))
            shown = members[_is_shown(members, ipc)]
            _preview(pixels[shown], labels[shown], unfinished.directory)

    with preemption.together("batches of images"):
        for group in grouped(left, batches, len(jax.local_devices())):
            recover_group(group)
    for number in range(len(batches)):
        if number not in finished:
            finish(number, unfinished.of_others(_part(number)))
    return pixels


def _part(*numbers: int) -> str:
    return f"batch-{'-'.join(map(str, numbers))}"


def _is_shown(places: np.ndarray, ipc: int) -> np.ndarray:
    classes, columns = _PREVIEW
    return (places // ipc < classes) & (places % ipc < columns)


def _preview(pixels: np.ndarray, labels: np.ndarray, directory: pathlib.Path) -> None:
    if len(pixels):
        images = pixels.astype(np.float32) / 255
        preview.save_preview(images, labels, directory / PREVIEW_FILE)


def make_batches(num_classes: int, ipc: int, method: Method) -> list[np.ndarray]:
    """Which images are recovered together: in as few batches as can be.

    Args:
      num_classes: Number of classes, C.
      ipc: Images per class.
      method: Says how many images a batch has at most, and in which order they are
        taken: the first of all classes, then the second (SRe2L's IPC indices), or
        whole classes (G-VBSM, EDC), of at most as many images.

    Returns:
      The places of each batch's images in the dataset, which is class by class.
    """
    places = np.arange(num_classes * ipc).reshape(num_classes, ipc)
    if not method.by_class:
        return np.array_split(
            places.T.ravel(), math.ceil(places.size / method.batch_size)
        )
    batches = math.ceil(num_classes / (method.batch_size // ipc))
    return [of.ravel() for of in np.array_split(places, batches)]


def grouped(
    numbers: Sequence[int], batches: Sequence[np.ndarray], devices: int
) -> list[list[int]]:
    """Numbers of batches that are recovered at once: of one size, one per device."""
    groups: list[list[int]] = []
    for number in numbers:
        last, size = groups[-1] if groups else [], len(batches[number])
        if last and len(last) < devices and len(batches[last[0]]) == size:
            last.append(number)
        else:
            groups.append([number])
    return groups


def clip(images: jax.Array, normalization: Normalization) -> jax.Array:
    """Clips normalised images (..., C) to what pixels in [0, 1] can be."""
    mean, std = (
        np.asarray(v, np.float32).reshape((1,) * (images.ndim - 1) + (-1,))
        for v in (normalization.mean, normalization.std)
    )
    return jnp.clip(images, -mean / std, (1 - mean) / std)


def step(
    state: State,
    key: jax.Array,
    labels: jax.Array,
    variables: Any,
    iteration: jax.Array,
    *,
    objective: Objective,
    method: Method,
) -> tuple[State, Mapping[str, jax.Array]]:
    """One iteration of one batch.

    Args:
      state: State of the batch.
      key: Key of the batch.
      labels: (B,) int32.
      variables: Variables of the objective.
      iteration: int32 scalar.
      objective: What is minimised.
      method: Gives the schedule and the valid range.

    Returns:
      The next state, and the terms of the loss.
    """
    task = Task(jax.random.fold_in(key, iteration), iteration, labels)

    def loss(images: jax.Array) -> tuple[jax.Array, tuple[Any, Any]]:
        terms, memory = objective(variables, images, state.memory, task)
        return sum(terms.values(), jnp.float32(0)), (terms, memory)

    gradient, (terms, memory) = jax.grad(loss, has_aux=True)(state.images)
    updates, optimizer = _adam(method).update(gradient, state.optimizer)
    images = clip(optax.apply_updates(state.images, updates), method.normalization)
    return State(images, optimizer, memory), terms


def _adam(method: Method) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(method.learning_rate, method.iterations)
    return optax.adam(schedule, *_BETAS)


def _recover_group(
    method: Method,
    advance: "_Advance",
    group: Sequence[int],
    places: Sequence[np.ndarray],
    labels: np.ndarray,
    shape: tuple[int, ...],
    seed: int,
    on_progress: OnProgress,
    unfinished: Unfinished,
) -> np.ndarray:
    """Recovers a group of batches, given their places: (batches, B, S, S, C) uint8."""
    devices = jax.local_devices()[: len(group)]
    base_key = streams.stream_key(seed, streams.Purpose.DISTILLATION)
    keys = jnp.stack([jax.random.fold_in(base_key, number) for number in group])
    if method.initial is None:
        pixels = np.broadcast_to(np.float32(0), (*np.shape(places), *shape))
    else:
        pixels = method.initial[np.stack(places)]
    start = jax.vmap(functools.partial(_initial, method))(keys, jnp.asarray(pixels))
    spread = functools.partial(devices_lib.spread, devices=devices)
    keys, of_batch = spread((keys, labels[np.stack(places)]))
    state = unfinished.run(
        _part(*group),
        jax.device_get(start),
        method.iterations,
        lambda state, done: advance(state, keys, of_batch, done),
        on_progress,
        place=spread,
    )
    images = method.normalization.invert(np.asarray(state.images))
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def _initial(method: Method, key: jax.Array, pixels: jax.Array) -> State:
    """A batch before its first iteration."""
    if method.initial is None:
        # No iteration has this number.
        key = jax.random.fold_in(key, method.iterations)
        images = jax.random.normal(key, pixels.shape)
    else:
        images = method.normalization.apply(pixels)
    return method.start(images)


# `advance(state, keys, labels, done)` -> state, terms (devices,), done.
_Advance = Callable[..., tuple[State, Mapping[str, np.ndarray], int]]


def _advance(
    method: Method, devices: Sequence[jax.Device], scan_some: bool | None = None
) -> _Advance:
    """A function that does one iteration, or on accelerators several by a scan."""
    if scan_some is None:
        scan_some = devices[0].platform != "cpu"
    steps = [
        functools.partial(step, objective=objective, method=method)
        for objective in method.objectives
    ]
    variables = devices_lib.replicate(list(method.variables), devices)
    mapped = functools.partial(
        devices_lib.mapped,
        in_axes=(0, 0, 0, None, None),
        devices=devices,
        donate_argnums=0,
    )
    if not scan_some:
        programs = [mapped(one) for one in steps]

        def advance(state: State, keys: Any, labels: Any, done: int) -> Any:
            turn = done % len(programs)
            state, terms = programs[turn](
                state, keys, labels, variables[turn], np.int32(done)
            )
            return state, jax.device_get(terms), done + 1

        return advance

    @functools.cache
    def scanned(count: int) -> Any:
        return mapped(functools.partial(scan, steps=steps, count=count))

    def advance_scanned(state: State, keys: Any, labels: Any, done: int) -> Any:
        count = min(_SCANNED, method.iterations - done)
        state, terms = scanned(count)(state, keys, labels, variables, np.int32(done))
        return state, jax.device_get(terms), done + count

    return advance_scanned


def scan(
    state: State,
    key: jax.Array,
    labels: jax.Array,
    variables: Sequence[Any],
    done: jax.Array,
    *,
    steps: Sequence[Callable[..., Any]],
    count: int,
) -> tuple[State, Mapping[str, jax.Array]]:
    """Some iterations in one program.

    Args:
      state: See `step`.
      key: See `step`.
      labels: See `step`.
      variables: Variables of every objective.
      done: How many iterations were done before.
      steps: `step` with the objective of every teacher.
      count: Number of iterations to do.

    Returns:
      The next state, and the terms of the last iteration.
    """

    def body(state: State, iteration: jax.Array) -> tuple[State, Any]:
        turns = [
            lambda state, one=one, of=of: one(state, key, labels, of, iteration)
            for one, of in zip(steps, variables, strict=True)
        ]
        return jax.lax.switch(iteration % len(turns), turns, state)

    state, terms = jax.lax.scan(body, state, done + jnp.arange(count))
    return state, jax.tree.map(lambda values: values[-1], terms)
