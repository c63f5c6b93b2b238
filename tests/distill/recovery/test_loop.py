"""The loop of recoveries: schedule, range, order, devices, and what is gone on from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.distill import unfinished as unfinished_lib
from gift_jax.distill.recovery import loop
from gift_jax.distill.unfinished import Unfinished
from gift_jax.runtime import hosts
from gift_jax.runtime.preemption import PreemptedError
from tests.distill.recovery import networks

INFO, NORMALIZATION = networks.INFO, networks.NORMALIZATION
TARGET = np.random.default_rng(3).uniform(-3, 3, (1, 8, 8, 3)).astype(np.float32)


def quadratic(variables, images, memory, task):
    """Draws images to a target and a little to noise; counts in its memory."""
    noise = jax.random.normal(task.key, images.shape)
    terms = {
        "target": ((images - variables["target"]) ** 2).sum(),
        "noise": 0.1 * (images * noise).sum(),
    }
    return terms, memory + 1


def method(**fields):
    defaults = {
        "objectives": [quadratic],
        "variables": [{"target": TARGET}],
        "normalization": NORMALIZATION,
        "iterations": 12,
        "learning_rate": 0.3,
        "batch_size": 4,
        "memory": lambda images: jnp.int32(0),
    }
    return loop.Method(**{**defaults, **fields})


recover = functools.partial(loop.recover, info=INFO, ipc=3, seed=1)


def test_the_valid_range_is_that_of_pixels():
    mean, std = np.array(NORMALIZATION.mean), np.array(NORMALIZATION.std)
    found = np.asarray(loop.clip(jnp.array([[-99.0] * 3, [99.0] * 3]), NORMALIZATION))
    np.testing.assert_allclose(found, [-mean / std, (1 - mean) / std], rtol=1e-6)
    inside = jnp.asarray(0.5 * found)
    np.testing.assert_array_equal(loop.clip(inside, NORMALIZATION), inside)


def test_steps_are_adams_along_a_cosine_and_clipped():
    chosen = method()
    key, labels = jax.random.key(0), jnp.zeros(2, jnp.int32)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    state = chosen.start(images)
    step = jax.jit(functools.partial(loop.step, objective=quadratic, method=chosen))
    x, first, second = np.float64(images), 0.0, 0.0
    low, high = (
        (np.array(p) - NORMALIZATION.mean) / NORMALIZATION.std
        for p in ([0.0] * 3, [1.0] * 3)
    )
    for i in range(12):
        noise = jax.random.normal(jax.random.fold_in(key, i), images.shape)
        gradient = 2 * (x - TARGET) + 0.1 * np.float64(noise)
        first = 0.5 * first + 0.5 * gradient
        second = 0.9 * second + 0.1 * gradient**2
        rate = 0.3 * 0.5 * (1 + np.cos(np.pi * i / 12))
        root = np.sqrt(second / (1 - 0.9 ** (i + 1))) + 1e-8
        x = np.clip(x - rate * first / (1 - 0.5 ** (i + 1)) / root, low, high)
        state, terms = step(state, key, labels, {"target": TARGET}, np.int32(i))
        assert terms.keys() == {"target", "noise"}
        np.testing.assert_allclose(state.images, x, atol=2e-5)
    assert state.memory == 12


def test_batches_are_equal_and_hold_every_image_once():
    by_index = loop.make_batches(3, 4, method(batch_size=5))
    assert [len(batch) for batch in by_index] == [4, 4, 4]
    assert by_index[0].tolist() == [0, 4, 8, 1]  # of each class the first
    whole = functools.partial(method, by_class=True)
    by_class = loop.make_batches(3, 4, whole(batch_size=8))
    assert [batch.tolist() for batch in by_class] == [[*range(8)], [*range(8, 12)]]
    assert len(loop.make_batches(10, 50, whole(batch_size=100))) == 5
    assert len(loop.make_batches(1000, 2, method(batch_size=100))) == 20


def test_devices_work_on_batches_of_one_size():
    batches = [np.arange(2)] * 3 + [np.arange(1)] * 2
    assert loop.grouped(range(5), batches, 2) == [[0, 1], [2], [3, 4]]
    assert loop.grouped([1, 4], batches, 8) == [[1], [4]]


@pytest.fixture(scope="module")
def whole():
    return recover(method())


def test_images_go_to_what_is_minimised():
    pixels = recover(method(iterations=60))
    expected = np.clip(NORMALIZATION.invert(TARGET), 0, 1) * 255
    assert np.abs(pixels - expected).max() < 12  # as far as the noise draws them
    assert pixels.shape == (9, 8, 8, 3) and pixels.dtype == np.uint8


def test_the_seed_decides(whole):
    np.testing.assert_array_equal(recover(method()), whole)
    assert (recover(method(), seed=2) != whole).any()
    assert len(np.unique(whole.reshape(9, -1), axis=0)) == 9


def test_any_number_of_devices_gives_the_same(whole, monkeypatch):
    devices = jax.devices()[:2]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    np.testing.assert_array_equal(recover(method()), whole)


def test_a_scan_is_its_steps():
    chosen = method(
        objectives=[quadratic] * 2,
        variables=[{"target": TARGET}, {"target": -TARGET}],
        iterations=5,
    )
    one = functools.partial(loop.step, objective=quadratic, method=chosen)
    steps = [jax.jit(one)] * 2
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    start = chosen.start(images)
    key, labels, expected = jax.random.key(0), jnp.zeros(2, jnp.int32), start
    for i in range(1, 4):
        of_teacher = chosen.variables[i % 2]
        expected, terms = steps[0](expected, key, labels, of_teacher, np.int32(i))
    found, last = loop.scan(
        start, key, labels, chosen.variables, np.int32(1), steps=steps, count=3
    )
    for ours, theirs in zip(
        jax.tree.leaves((found, last)), jax.tree.leaves((expected, terms)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_teachers_take_turns():
    pixels = recover(
        method(
            objectives=[quadratic] * 2,
            variables=[{"target": TARGET}, {"target": -TARGET}],
            iterations=60,
        )
    )
    middle = 255 * np.array(NORMALIZATION.mean)  # between the two
    assert np.abs(pixels.mean((0, 1, 2)) - middle).max() < 20


def test_images_to_start_from():
    initial = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3)) / 255
    pixels = recover(method(initial=np.float32(initial), iterations=1, learning_rate=0))
    np.testing.assert_array_equal(pixels, np.rint(initial * 255))


def test_finished_images_are_counted(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    images = []
    recover(
        method(iterations=2),  # of three batches with three images each
        on_progress=lambda done, total, **terms: images.append(terms["images"]),
    )
    assert images == [0, 0, 3, 3, 3, 6, 6, 6, 9]


def stopped_at(count):
    calls = []

    def on_progress(done, total, **terms):
        calls.append(done)
        assert total == 3 * 12
        assert terms.keys() in ({"images"}, {"images", "target", "noise"})
        if len(calls) == count:
            raise PreemptedError

    return calls, on_progress


@pytest.mark.parametrize("count", [1, 5, 17])
def test_a_stopped_recovery_goes_on_exactly(count, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    unfinished = Unfinished(tmp_path / "unfinished")
    calls, on_progress = stopped_at(count)
    with pytest.raises(PreemptedError):
        recover(method(), on_progress=on_progress, unfinished=unfinished)
    later, on_progress = stopped_at(-1)
    found = recover(method(), on_progress=on_progress, unfinished=unfinished)
    np.testing.assert_array_equal(found, whole)
    assert later[0] == calls[-1] and later[-1] == 36  # no iteration is done twice
    assert (unfinished.directory / "preview.png").is_file()


def test_a_killed_recovery_goes_on_from_the_latest_state(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished_lib, "_SECONDS_BETWEEN_SAVES", -1.0)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    unfinished = Unfinished(tmp_path)

    def killed(done, total, **terms):
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(method(), on_progress=killed, unfinished=unfinished)
    later, on_progress = stopped_at(-1)
    found = recover(method(), on_progress=on_progress, unfinished=unfinished)
    np.testing.assert_array_equal(found, whole)
    assert later[0] == 14


def test_hosts_recover_a_part_each(whole, tmp_path, monkeypatch):
    unfinished = Unfinished(tmp_path)
    monkeypatch.setattr(hosts, "count", lambda: 2)
    totals = []
    for index, is_stopped in ((1, True), (0, False)):
        monkeypatch.setattr(hosts, "index", lambda index=index: index)
        monkeypatch.setattr(hosts, "on_any", lambda name, flag, any=is_stopped: any)
        done = []
        job = functools.partial(
            recover,
            method(),
            on_progress=lambda *of, done=done, **terms: done.append(of),
            unfinished=unfinished,
        )
        if is_stopped:
            with pytest.raises(PreemptedError):  # as the other has
                job()
            assert [p.name for p in tmp_path.iterdir()] == ["batch-1.npz"]
        else:
            np.testing.assert_array_equal(job(), whole)
        totals.append(done[-1])
    assert totals == [(12, 12), (24, 24)]


def test_a_recovery_begun_step_by_step_goes_on_in_scans(whole, tmp_path, monkeypatch):
    """As one that a CPU saved goes on on an accelerator."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(loop, "_SCANNED", 4)
    _, on_progress = stopped_at(6)
    with pytest.raises(PreemptedError):
        recover(method(), on_progress=on_progress, unfinished=Unfinished(tmp_path))
    in_scans = functools.partial(loop._advance, scan_some=True)
    monkeypatch.setattr(loop, "_advance", in_scans)
    found = recover(method(), unfinished=Unfinished(tmp_path))
    np.testing.assert_allclose(found.astype(int), whole, atol=1)
