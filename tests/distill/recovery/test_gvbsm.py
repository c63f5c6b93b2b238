"""G-VBSM: its constants, and the terms of its loss against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gift_jax.data.info import dataset_info
from gift_jax.distill import Gvbsm, make_distiller
from gift_jax.distill.recovery import gvbsm, loop, real_statistics, statistics
from gift_jax.runtime.errors import InputError
from gift_jax.teachers import TeacherError, ensemble
from tests.distill.recovery import networks
from tests.distill.recovery.test_real_statistics import moments, patches

IMAGES = np.random.default_rng(1).normal(size=(6, 8, 8, 3)).astype(np.float32)
LABELS = np.repeat(np.arange(3), 2)


def test_constants_of_the_official_scripts():
    """Iterations, learning rate, r_loss, batch, alpha, beta_dr, padding."""
    assert [gvbsm.Gvbsm(1).constants(info) for info in networks.OFFICIAL] == [
        (4000, 0.05, 0.01, 100, 0.8, 0.4, 4),
        (4000, 0.05, 0.01, 100, 0.8, 0.4, 8),
        (4000, 0.1, 0.01, 80, 0.4, 0.0, 0),
    ]


def random_statistics(teacher, seed=0):
    rng = np.random.default_rng(seed)
    shapes = real_statistics.shapes(teacher, networks.INFO)
    return jax.tree.map(
        lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32), shapes
    )


def of_layers(variables, images):
    """Layer by layer the moments of a batch, those of channels and of patches."""
    _, of_convs, of_norms = networks.conv_net(variables, images)
    found = []
    for fed, normed in zip(of_convs, of_norms, strict=True):
        found.append([moments(fed, (0, 1, 2)), moments(patches(fed), (0, 2))])
        found.append([moments(normed, (0, 1, 2))])
    return found


def targets_of(teacher, real):
    """What each layer is to have: a convolution the real images', a norm its own."""
    kept = teacher.variables["batch_stats"]
    norms = [(kept[f"norm{i}"]["mean"], kept[f"norm{i}"]["var"]) for i in range(2)]
    return [real[0].of_batches, [norms[0]], real[2].of_batches, [norms[1]]]


def distances(found, averages, targets, momentum, weights):
    """Of averages over iterations, with the values and the slopes of the batch.

    Returns:
      The sum at `found`, as a function of another `found`, and the averages there.
    """
    following = [
        [
            tuple(
                momentum * np.float64(o) + (1 - momentum) * n
                for o, n in zip(*both, strict=True)
            )
            for both in zip(old, new, strict=True)
        ]
        for old, new in zip(averages, found, strict=True)
    ]

    def at(moved):
        total = 0.0
        for layer in range(len(found)):
            for kind in range(len(found[layer])):
                for i in range(2):
                    seen = following[layer][kind][i]
                    seen = seen + moved[layer][kind][i] - found[layer][kind][i]
                    gap = seen - np.float64(targets[layer][kind][i])
                    total += weights[layer] * np.linalg.norm(gap)
        return total

    return at, following


@pytest.fixture(scope="module")
def case():
    teacher = networks.teacher()
    real = random_statistics(teacher)
    rng = np.random.default_rng(2)
    averages = jax.tree.map(
        lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32),
        gvbsm.first_averages([teacher], jnp.asarray(IMAGES), 4),
    )[0]

    @jax.jit
    def graded(images, kept):
        def loss(images):
            _, layers = statistics.logits_and_layers(
                teacher.model, teacher.variables, images
            )
            targets = [
                [gvbsm.expected(layer, of)]
                for layer, of in zip(layers, real, strict=True)
            ]
            return gvbsm.statistics_loss(
                layers, targets, averages, momentum=0.8, kept=kept, side=4
            )

        return jax.value_and_grad(loss, has_aux=True)(images)

    return teacher, real, averages, graded


@pytest.mark.parametrize("kept", [(1, 1, 1, 1), (0, 0, 1, 0)])
def test_the_distance_of_statistics_and_its_gradient(case, kept):
    teacher, real, averages, graded = case
    (value, following), gradient = graded(IMAGES, np.array(kept, bool))
    found = of_layers(teacher.variables, IMAGES)
    weights = [10.0 * kept[0], 1.0, 1.0 * kept[2], 1.0]  # norms are never passed over
    at, expected = distances(found, averages, targets_of(teacher, real), 0.8, weights)
    np.testing.assert_allclose(value, at(found), rtol=1e-5)
    for layer in range(4):
        passed_over = layer % 2 == 0 and not kept[layer]
        theirs = averages[layer] if passed_over else expected[layer]
        for ours, other in zip(following[layer], theirs, strict=True):
            np.testing.assert_allclose(np.stack(ours), np.stack(other), 1e-5, 1e-6)
    chosen, slopes = networks.finite_differences(
        lambda x: at(of_layers(teacher.variables, x)), IMAGES
    )
    np.testing.assert_allclose([gradient[i] for i in chosen], slopes, 1e-3, 1e-6)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def reference_density(images, per_class, temperature=4.0):
    """Of images of 8 pixels: pooling to 32 repeats each 4 by 4 times."""
    repeated = np.float64(images).repeat(4, axis=1).repeat(4, axis=2)
    rows = repeated.reshape(-1, per_class, repeated[0].size)
    values = [np.linalg.eigvalsh(r @ r.T) for r in rows]
    targets = [softmax(v / temperature) for v in values]

    def at(images):
        repeated = np.float64(images).repeat(4, axis=1).repeat(4, axis=2)
        total = 0.0
        for r, t in zip(
            repeated.reshape(-1, per_class, repeated[0].size), targets, strict=True
        ):
            v = np.linalg.eigvalsh(r @ r.T)
            log = v - v.max() - np.log(np.exp(v - v.max()).sum())
            total += (t * (np.log(t) - log)).sum()
        return total

    return at


def test_the_density_of_classes_and_its_gradient():
    images = (0.04 * IMAGES).astype(np.float32)  # eigenvalues of a few units
    value, gradient = jax.jit(jax.value_and_grad(lambda x: gvbsm.density(x, 3)))(images)
    at = reference_density(images, 3)
    assert at(images) > 0.1
    np.testing.assert_allclose(value, at(images), rtol=1e-5)
    chosen, slopes = networks.finite_differences(at, images)
    np.testing.assert_allclose([gradient[i] for i in chosen], slopes, 1e-3, 1e-6)


def test_equal_images_have_a_finite_gradient():
    equal = jnp.broadcast_to(jnp.asarray(0.1 * IMAGES[:1]), (4, 8, 8, 3))
    assert np.isfinite(jax.grad(lambda x: gvbsm.density(x, 2))(equal)).all()
    assert gvbsm.density(equal, 1) == 0


def test_an_iteration_is_of_one_teacher(case):
    teacher, real, _, _ = case
    official = gvbsm.Gvbsm(1).constants(dataset_info("cifar10"))
    constants = official._replace(drop_rate=0.0, padding=1)
    first = gvbsm.first_averages([teacher, teacher], jnp.asarray(IMAGES), 4)
    task = loop.Task(jax.random.key(3), jnp.int32(1), jnp.asarray(LABELS))
    objective = jax.jit(gvbsm.objective(teacher, constants, 1, 2, 4))
    terms, memory = objective((teacher.variables, real), IMAGES, first, task)
    seen = np.asarray(gvbsm.view(jax.random.split(task.key)[0], IMAGES, 1))
    logits, *_ = networks.conv_net(teacher.variables, seen)
    found = of_layers(teacher.variables, seen)
    weights = [10.0, 1.0, 1.0, 1.0]
    at, _ = distances(found, first[1], targets_of(teacher, real), 0.8, weights)
    expected = {
        "ce": networks.cross_entropy(logits, LABELS),
        "statistics": 0.01 * at(found),
        "density": reference_density(seen, 2)(seen),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, memory[0], first[0])
    assert jax.tree.leaves(memory[1])[0].any()


def test_views_are_shifts_of_a_batch():
    keys = jax.random.split(jax.random.key(0), 8)
    see = jax.jit(gvbsm.view, static_argnums=2)
    for key in keys:  # nothing is interpolated, and padding is black
        assert np.isin(np.asarray(see(key, IMAGES, 2)), [0, *IMAGES.ravel()]).all()
    # Without padding crops are resized.
    assert not np.isin(np.asarray(see(keys[0], IMAGES, 0)), IMAGES).all()
    ones = np.ones((1, 8, 8, 3), np.float32)
    sums = [np.asarray(gvbsm.view(key, ones, 2)).sum() / 3 for key in keys]
    assert {round(float(s)) for s in sums} <= {
        a * b for a in (6, 7, 8) for b in (6, 7, 8)
    }
    assert len(set(sums)) > 1


def test_options_and_turns():
    pair = ensemble.average("two", [networks.teacher(), networks.teacher(seed=1)])
    real = [random_statistics(member) for member in ensemble.members(pair)]
    distiller = make_distiller("gvbsm", ipc=2, iterations=7)
    method = distiller.method(pair, networks.NORMALIZATION, networks.INFO, real)
    assert (method.iterations, method.learning_rate, method.batch_size) == (
        7,
        0.05,
        100,
    )
    assert method.by_class and len(method.objectives) == len(method.variables) == 2
    assert distiller.needs == {"teacher", "teacher_gradients", "teacher_statistics"}
    with pytest.raises(InputError, match="Gvbsm: batch_size is -1"):
        make_distiller("gvbsm", ipc=2, batch_size=-1)


@pytest.mark.parametrize("kind", ["gvbsm", "edc"])
def test_batches_have_whole_classes(kind):
    data = networks.data(images_per_class=200)
    make_distiller(kind, ipc=100).check(data)
    message = f"{kind.title()}: ipc is 101, but .* set batch_size to at least 101"
    distiller = make_distiller(kind, ipc=101)
    for refuse in (
        distiller.check,
        lambda data: distiller.make(data, teacher=None, seed=0),
        lambda data: distiller.method(None, networks.NORMALIZATION, data.info),
    ):
        with pytest.raises(InputError, match=message):
            refuse(data)
    make_distiller(kind, ipc=101, batch_size=101).check(data)


def test_convolutions_will_do_for_a_teacher():
    info = dataset_info("cifar10")
    distiller = Gvbsm(1)
    distiller.check_network(networks.teacher(norm="instance").model, networks.INFO)

    class Nothing(statistics.nn.Module):
        @statistics.nn.compact
        def __call__(self, images, train):
            return statistics.nn.Dense(10)(images.mean((1, 2)))

    with pytest.raises(TeacherError, match=r"gvbsm .* norms and convolutions, .* none"):
        distiller.check_network(Nothing(), info)
