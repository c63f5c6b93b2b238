"""DATM: its schedule, what it begins with, and what is learnt."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax import distilled
from gift_jax.data import info, real, sources
from gift_jax.distill import Datm
from gift_jax.distill.matching import datm, dm
from gift_jax.distill.matching import experts as experts_lib
from gift_jax.distill.matching.experts import Experts
from gift_jax.distill.matching.trajectories import Learnt
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.preemption import PreemptedError
from tests.distill.matching.smooth import INFO, MODEL, augment, case, loss_and_gradient

pytestmark = pytest.mark.usefixtures("one_device")


RNG = np.random.default_rng(0)
small = functools.partial(
    Datm,
    2,
    iterations=4,
    experts=2,
    epochs=40,
    lr_teacher=0.02,
    expert_epochs=5,
    start_epochs=(0, 2, 4),
    expansion_end=4,
    syn_steps=2,
    batch_size=4,
    learning_rate=10.0,
    lr_y=1.0,
    lr_lr=1e-3,
)


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    monkeypatch.setattr(Experts, "network", lambda self, info: MODEL)
    monkeypatch.setattr(dm, "augment", augment)


@pytest.fixture(scope="module")
def data():
    """Noise, with a bright stripe whose place is the class."""
    images = RNG.integers(0, 256, (210, 8, 8, 3), np.uint8)
    labels = np.arange(len(images)) % 3
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 3] //= 4
        image[:, 2 * label : 2 * label + 3] += 190
    split = real.ImageSplit(sources.RecordList(images, labels), INFO, "train")
    return real.RealDataset(INFO, split, split)


@pytest.fixture(scope="module")
def experts(data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experts, "network", lambda self, info: MODEL)
        directory = tmp_path_factory.mktemp("experts")
        return small(lr_teacher=0.3).experts_for(data, 0).train(data, directory)


def test_what_is_learnt_is_moved_by_sgd_with_momentum():
    learnt, part = case()
    distiller = small(learning_rate=2.0, lr_y=3.0, lr_lr=0.01)
    step = jax.jit(distiller.make_step(INFO))
    state = datm.State(learnt, distiller.optimizer(INFO).init(learnt))
    expected, velocity = learnt, jax.tree.map(jnp.zeros_like, learnt)
    for _ in range(2):
        _, gradient = loss_and_gradient(expected, part)
        momenta, rates = (0.5, 0.9, 0.5), (2.0, 3.0, 0.01)
        velocity = Learnt(
            *(m * v + g for m, v, g in zip(momenta, velocity, gradient, strict=True))
        )
        expected = Learnt(
            *(x - r * v for x, r, v in zip(expected, rates, velocity, strict=True))
        )
        state, value = step(state, part)
        assert value <= 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6),
        state.learnt,
        expected,
    )
    # Of a target on the other side: nothing moves, and no momentum is gathered.
    moved, value = step(state, part._replace(target=2 * part.start - part.target))
    assert value > 1
    jax.tree.map(np.testing.assert_array_equal, moved, state)


@pytest.mark.parametrize(
    ("ipc", "name", "expected"),
    [  # `Upper_Bound` of `DATM.py` at these iterations, of the published configs
        (10, "cifar10", {0: 10, 99: 10, 100: 11, 550: 15, 1000: 20, 9999: 20}),
        (1, "cifar10", {0: 4, 5000: 4}),
        (10, "cifar100", {0: 30, 1999: 49, 2000: 50}),
        (1, "tiny_imagenet", {0: 15, 400: 16, 2000: 20}),
        (50, "tiny_imagenet", {0: 70, 9999: 70}),
    ],
)
def test_upper_bounds_rise_as_the_official_ones(ipc, name, expected):
    constants = Datm(ipc).constants(info.dataset_info(name))
    found = {done: datm.upper_bound(constants, done) for done in expected}
    assert found == expected


def test_constants_are_those_of_the_next_larger_ipc():
    cifar10, cifar100 = map(info.dataset_info, ("cifar10", "cifar100"))
    official = Datm(10).constants(cifar10)
    assert official == datm.Constants(
        (0, 10, 20), 1000, 100.0, 2.0, 80, 100, 2, 1e-5, 1.0
    )
    assert Datm(7).constants(cifar10) == official._replace(batch_size=70)
    assert Datm(2000).constants(cifar10).syn_steps == 100
    assert Datm(1).constants(cifar100).expert_epochs == 3
    changed = Datm(10, lr_y=7.0, start_epochs=(3, 5, 5)).constants(cifar10)
    assert changed == official._replace(lr_y=7.0, start_epochs=(3, 5, 5))


def test_draws_of_parts_and_batches():
    drawn = [small().draw(INFO, 0, done) for done in range(200)]
    assert {expert for expert, *_ in drawn} == {0, 1}
    assert {epoch for _, epoch, _ in drawn[:2]} <= {0, 1}
    assert {epoch for _, epoch, _ in drawn[4:]} == {0, 1, 2, 3}
    for *_, batches in drawn[:5]:  # of 6 images, batches of 4: the rest is left out
        assert batches.shape == (2, 4)
        assert all(len(set(batch)) == 4 for batch in batches)
    *_, batches = small(batch_size=2, syn_steps=6).draw(INFO, 0, 0)
    assert all(sorted(p.ravel()) == list(range(6)) for p in (batches[:3], batches[3:]))
    assert (batches[:3] != batches[3:]).any()


def test_images_begin_as_those_that_experts_classify_correctly(data, experts):
    distiller = small(zca=True)
    transform = distiller.experts_for(data, 0).preprocess(data)
    learnt = jax.device_get(distiller.start(data, transform, experts, 0)).learnt
    pixels = np.rint(transform.invert(learnt.images) * 255).astype(np.uint8)
    logits = np.stack(
        [
            MODEL.apply(
                experts_lib.unflatten(MODEL, INFO)(expert[-1]),
                learnt.images,
                train=False,
            )
            for expert in experts
        ]
    )
    seen = set()
    for i, label in enumerate(np.repeat(np.arange(3), 2)):
        found = np.flatnonzero((data.train.all_images() == pixels[i]).all((1, 2, 3)))
        assert data.train.labels[found].tolist() == [label]
        seen |= set(found)
        correct = [e[i] for e in logits if e[i].argmax() == label]
        np.testing.assert_allclose(learnt.labels[i], np.mean(correct, 0), 1e-4, 1e-5)
    assert len(seen) == 6 and learnt.rate == np.float32(0.02)


def test_images_that_no_expert_knows_are_refused():
    def logits(expert, indices):
        return np.eye(3)[np.zeros(len(indices), int)]

    rng = np.random.default_rng(0)
    assert len(small()._correct(logits, rng, 0, np.arange(5))) == 2
    with pytest.raises(InputError, match="of class 1 the experts classify only 0"):
        small()._correct(logits, rng, 1, np.arange(5))
    # The second expert knows what the first does not.
    first = small()._correct(
        lambda e, i: np.eye(3)[np.where(i < 1 + e, 2, 0)], rng, 2, np.arange(5)
    )
    assert sorted(first) == [0, 1]


def test_a_stopped_distillation_goes_on_exactly(data, experts, tmp_path):
    make = functools.partial(small().make, data, seed=1, experts=experts)
    history = []

    def stop(done, total, **metrics):
        history.append((done, total))
        if done == 2:
            raise PreemptedError

    whole = make()
    with pytest.raises(PreemptedError):
        make(on_progress=stop, directory=tmp_path)
    with pytest.raises(PreemptedError):  # where it was
        make(on_progress=stop, directory=tmp_path)
    assert history == [(0, 4), (1, 4), (2, 4), (2, 4)]
    found = make(directory=tmp_path)
    assert found.fingerprint == whole.fingerprint
    assert found.metadata == whole.metadata
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    start = small().start(data, found.preprocess, experts, 1).learnt
    assert (found.soft_labels != start.labels).any()
    assert found.metadata.learning_rate != float(start.rate)
    assert make(seed=2).fingerprint != whole.fingerprint


def test_what_is_made_is_read_back_from_their_files(data, experts, tmp_path):
    made = small().make(data, seed=0, experts=experts)
    assert made.is_whitened and made.metadata.method == "datm"
    for form, path in (("datm", tmp_path / "three"), ("gift", tmp_path / "data.pt")):
        distilled.write_distilled(made, path, form)
        read = distilled.read_distilled(
            path, dataset=INFO, train_images=data.train.all_images()
        )
        assert read.fingerprint == made.fingerprint
    read = distilled.read_distilled(
        tmp_path / "three", dataset=INFO, train_images=data.train.all_images()
    )
    assert read.metadata.learning_rate == made.metadata.learning_rate


def test_without_whitening_pixels_are_returned(data, tmp_path):
    """Experts are trained where none are given, and kept in the directory."""
    distiller = small(zca=False, iterations=1)
    made = distiller.make(data, seed=0, directory=tmp_path)
    assert not made.is_whitened and made.soft_labels is not None
    assert sorted(p.name for p in (tmp_path / "experts").iterdir()) == [
        "expert_000.f32",
        "expert_001.f32",
    ]


def test_the_loss_falls(data, experts):
    history = []
    small(iterations=60).make(
        data,
        seed=0,
        experts=experts,
        on_progress=lambda done, total, **terms: history.append(terms),
    )
    losses = [terms["loss"] for terms in history[1:]]
    assert np.mean(losses[-15:]) < 0.6 * np.mean(losses[:15])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ipc": 71}, "ipc is 71, but class 0 of made has 70"),
        (
            {"epochs": 4},
            "begin up to epoch 3 and are of 5 .* trained for 4: set epochs",
        ),
        ({"start_epochs": (0, 5)}, r"start_epochs is \(0, 5\), expected three"),
        ({"start_epochs": (2, 2, 3)}, r"start_epochs is \(2, 2, 3\)"),
        ({"experts": 0}, "Datm: experts is 0, expected a whole number of at least 1"),
        ({"lr_y": -1.0}, "lr_y is -1.0"),
    ],
)
def test_what_cannot_be_is_refused_before_experts_are_trained(
    data, options, message, monkeypatch
):
    monkeypatch.setattr(experts_lib, "fit", None)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(small(), **options).check(data)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(small(), **options).make(data, seed=0)


def test_fewer_images_than_whitening_needs_are_refused(data):
    small().check(data)
    few = dataclasses.replace(data, train=data.train.subset(np.arange(191)))
    small(zca=False).check(few)
    told = r"shape \(191, 8, 8, 3\).* N >= H \* W.*distilled\.datm\.zca=False"
    with pytest.raises(InputError, match=told):
        small().check(few)
