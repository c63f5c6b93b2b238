"""Tests of `gift_jax.optimizers` against update rules written out in NumPy."""

import collections
import dataclasses
import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gift_jax import optimizers, registry
from gift_jax.configs import common
from gift_jax.optimizers import OptimizerSpec
from gift_jax.runtime.errors import InputError
from gift_jax.specs.optimizer import optimizer_spec

# A quadratic with a bias, a matrix and a convolution (H, W, I, O), all decayed.
_rng = np.random.default_rng(0)
CURVATURE = {
    "bias": np.array([0.5, 4.0]),
    "conv": _rng.uniform(0.1, 3, (2, 2, 1, 3)),
    "kernel": np.array([[1.0, 3.0, 0.3], [2.0, 0.1, 1.0]]),
}
MINIMUM = {
    "bias": np.array([1.0, -1.0]),
    "conv": _rng.normal(size=(2, 2, 1, 3)),
    "kernel": np.array([[2.0, 0.0, -1.0], [-3.0, 5.0, 2.0]]),
}
START = {
    "bias": np.array([0.3, 2.0]),
    "conv": _rng.normal(size=(2, 2, 1, 3)),
    "kernel": np.array([[-1.0, 1.5, 0.5], [0.7, -2.0, 1.2]]),
}
EPOCHS, STEPS_PER_EPOCH = 6, 2
TOLERANCE = 2e-5


def gradient(parameters):
    return {k: CURVATURE[k] * (parameters[k] - MINIMUM[k]) for k in parameters}


def initial(spec, optimizer, parameters):
    """The optimizer's state with the learning rate of the spec."""
    state = optimizer.init(parameters)
    return optimizers.with_learning_rate(state, spec.learning_rate)


def trained(spec):
    """Parameters, and those to evaluate, after every step of the whole schedule."""
    optimizer = optimizers.build_optimizer(
        spec, epochs=EPOCHS, steps_per_epoch=STEPS_PER_EPOCH
    )
    parameters = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), START)
    state = initial(spec, optimizer, parameters)

    @jax.jit
    def step(parameters, state):
        updates, state = optimizer.update(gradient(parameters), state, parameters)
        return optax.apply_updates(parameters, updates), state

    history = []
    for _ in range(EPOCHS * STEPS_PER_EPOCH):
        parameters, state = step(parameters, state)
        evaluated = optimizers.evaluation_params(state, parameters)
        history.append(jax.device_get((parameters, evaluated)))
    return history


def rate_at(spec, step):
    """The learning rate of the two default schedules over 6 epochs of 2 steps."""
    epoch = step // STEPS_PER_EPOCH
    if spec.schedule == "warmup_constant":
        return spec.learning_rate * min(step / STEPS_PER_EPOCH, 1.0)
    assert spec.schedule == "step"
    return spec.learning_rate * 0.2 ** ((epoch >= 4) + (epoch >= 5))


# Update rules of one array: (spec, step from zero, gradient, array, memory) -> array.
# The memory keeps what the rule assigns to it, and is zero at first.


def sgd(spec, step, g, p, memory):
    """torch.optim.SGD: L2 in the gradient, the rate outside of the momentum."""
    g = g + spec.weight_decay * p
    memory["v"] = spec.momentum * memory["v"] + g
    direction = g + spec.momentum * memory["v"] if spec.nesterov else memory["v"]
    return p - rate_at(spec, step) * direction


def adam_direction(step, g, memory, b1=0.9, b2=0.999, eps=1e-8, nesterov=False):
    memory["m"] = b1 * memory["m"] + (1 - b1) * g
    memory["v"] = b2 * memory["v"] + (1 - b2) * g**2
    mean = memory["m"] / (1 - b1 ** (step + 1))
    if nesterov:
        ahead = memory["m"] / (1 - b1 ** (step + 2))
        mean = b1 * ahead + (1 - b1) * g / (1 - b1 ** (step + 1))
    return mean / (np.sqrt(memory["v"] / (1 - b2 ** (step + 1))) + eps)


def adam(spec, step, g, p, memory):
    """torch.optim.Adam."""
    direction = adam_direction(step, g + spec.weight_decay * p, memory)
    return p - rate_at(spec, step) * direction


def adamw(spec, step, g, p, memory):
    """torch.optim.AdamW."""
    direction = adam_direction(step, g, memory) + spec.weight_decay * p
    return p - rate_at(spec, step) * direction


def rmsprop(spec, step, g, p, memory):
    """torch.optim.RMSprop with alpha 0.9."""
    g = g + spec.weight_decay * p
    memory["v"] = 0.9 * memory["v"] + 0.1 * g**2
    return p - rate_at(spec, step) * g / (np.sqrt(memory["v"]) + 1e-8)


def lamb(spec, step, g, p, memory):
    """Algorithm 2 of arXiv 1904.00962."""
    direction = adam_direction(step, g, memory, eps=1e-6) + spec.weight_decay * p
    trust_ratio = np.linalg.norm(p) / np.linalg.norm(direction)
    return p - rate_at(spec, step) * trust_ratio * direction


def lion(spec, step, g, p, memory):
    """Algorithm 2 of arXiv 2302.06675."""
    direction = np.sign(0.9 * memory["m"] + 0.1 * g)
    memory["m"] = 0.99 * memory["m"] + 0.01 * g
    return p - rate_at(spec, step) * (direction + spec.weight_decay * p)


def adafactor(spec, step, g, p, memory):
    """Adafactor (arXiv 1804.04235) of absolute rate, its moments not factored."""
    b2 = 1 - (step + 1) ** -0.8
    memory["v"] = b2 * memory["v"] + (1 - b2) * (g**2 + 1e-30)
    direction = g / np.sqrt(memory["v"])
    direction /= max(1.0, np.sqrt(np.mean(direction**2)))
    return p - rate_at(spec, step) * (direction + spec.weight_decay * p)


def muon(spec, step, g, p, memory):
    """github.com/KellerJordan/Muon; optax corrects the momentum's bias."""
    decay = spec.weight_decay * p
    if p.ndim == 1:
        direction = adam_direction(step, g, memory, b2=0.95, nesterov=True)
        return p - 0.015 * rate_at(spec, step) * (direction + decay)
    memory["m"] = 0.95 * memory["m"] + 0.05 * g
    momentum = 0.95 * memory["m"] / (1 - 0.95 ** (step + 2))
    momentum = momentum + 0.05 * g / (1 - 0.95 ** (step + 1))
    x = momentum.reshape(-1, p.shape[-1])
    scale = max(1.0, x.shape[1] / x.shape[0]) ** 0.5
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return p - rate_at(spec, step) * (scale * x.reshape(p.shape) + decay)


def schedule_free_adamw(spec, step, g, p, memory):
    """Schedule-free AdamW of arXiv 2405.15682; optax averages by the next rate."""
    z, x = memory.get("z", p), memory.get("x", p)
    memory["v"] = 0.999 * memory["v"] + 0.001 * g**2
    direction = g / (np.sqrt(memory["v"] / (1 - 0.999 ** (step + 1))) + 1e-8)
    z = z - rate_at(spec, step) * (direction + spec.weight_decay * p)
    memory["largest"] = max(memory["largest"], rate_at(spec, step + 1))
    memory["weights"] += memory["largest"] ** 2
    c = memory["largest"] ** 2 / memory["weights"]
    x = (1 - c) * x + c * z
    memory["z"], memory["x"] = z, x
    return 0.1 * z + 0.9 * x


WITH_DECAY_OF_VECTORS = {"sgd", "adam", "adamw", "rmsprop"}
REFERENCES = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
    "lamb": lamb,
    "lion": lion,
    "adafactor": adafactor,
    "muon": muon,
    "schedule_free_adamw": schedule_free_adamw,
}


def written_out(spec):
    """As `trained`, by the rule of the spec's name."""
    rule = REFERENCES[spec.name]
    parameters = START
    memory = {k: collections.defaultdict(float) for k in START}
    of = dict.fromkeys(START, spec)
    if not dict(spec.options).get("decay_vectors", True):
        of["bias"] = dataclasses.replace(spec, weight_decay=0.0)
    for step in range(EPOCHS * STEPS_PER_EPOCH):
        slope = gradient(parameters)
        parameters = {
            k: rule(of[k], step, slope[k], parameters[k], memory[k]) for k in START
        }
        yield parameters, {k: memory[k].get("x", parameters[k]) for k in START}


SPECS = [
    OptimizerSpec("sgd", learning_rate=0.1, weight_decay=0.0, momentum=0.0),
    OptimizerSpec("sgd", learning_rate=0.05, weight_decay=0.3, nesterov=True),
    *(OptimizerSpec(n, 0.1, 0.3, schedule="step") for n in REFERENCES),
    *(OptimizerSpec(n) for n in REFERENCES),
    *(
        OptimizerSpec(n, 0.1, 0.3, schedule="step", options=(("decay_vectors", False),))
        for n in sorted(WITH_DECAY_OF_VECTORS)
    ),
]


def test_every_optimizer_has_a_reference():
    assert {*REFERENCES, "prodigy"} == set(optimizers.OPTIMIZERS)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_step_equals_the_written_out_update(spec):
    actual, expected = trained(spec), list(written_out(spec))
    assert len(actual) == len(expected) == 12
    for ours, theirs in zip(actual, expected, strict=True):
        for name in START:
            # What is trained, and what is evaluated.
            for a, b in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a[name], b[name], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", sorted(WITH_DECAY_OF_VECTORS))
def test_without_decay_of_vectors_tokens_are_not_decayed_either(name):
    spec = OptimizerSpec.create(name, weight_decay=0.3, decay_vectors=False)
    optimizer = optimizers.build_optimizer(spec, epochs=2, steps_per_epoch=1)
    shapes = {"kernel": (2, 2), "cls_token": (1, 1, 2), "pos_embed": (1, 3, 2)}
    params = {k: jnp.ones(shape) for k, shape in shapes.items()}
    state = initial(spec, optimizer, params)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert {k: bool(updates[k].any()) for k in shapes} == {
        "kernel": True,
        "cls_token": False,
        "pos_embed": False,
    }


def prodigy(spec, epochs):
    """Of https://github.com/konstmish/prodigy, with its use_bias_correction.

    The rate is found for all arrays together.
    """
    d0 = d = 1e-6
    b1, b2, b3 = 0.9, 0.999, 0.999**0.5
    arrays = [START[name] for name in sorted(START)]
    p = p0 = np.concatenate([array.ravel() for array in arrays])
    curvature, minimum = (
        np.concatenate([tree[name].ravel() for name in sorted(START)])
        for tree in (CURVATURE, MINIMUM)
    )
    m, v, s, numerator = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p), 0.0
    for step in range(epochs * STEPS_PER_EPOCH):
        epoch = step // STEPS_PER_EPOCH
        rate = spec.learning_rate * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        g = curvature * (p - minimum)
        correction = (1 - b2 ** (step + 1)) ** 0.5 / (1 - b1 ** (step + 1))
        dlr = d * rate * correction
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * (d * g) ** 2
        s = b3 * s + d / d0 * dlr * g
        numerator = b3 * numerator + d / d0 * dlr * g @ (p0 - p)
        d = max(d, numerator / np.abs(s).sum())
        p = p - dlr * spec.weight_decay * p - dlr * m / (np.sqrt(v) + d * 1e-8)
        yield d, p


@pytest.mark.parametrize("warmup_epochs", [0, 5])
@pytest.mark.parametrize("schedule", optimizers.SCHEDULES)
def test_prodigy_follows_any_schedule(schedule, warmup_epochs):
    spec = OptimizerSpec("prodigy", schedule=schedule, warmup_epochs=warmup_epochs)
    optimizer = optimizers.build_optimizer(spec, epochs=60, steps_per_epoch=1)
    params = {"kernel": jnp.ones((2, 2))}
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert np.isfinite(params["kernel"]).all()


def test_prodigy_finds_the_rate_that_its_code_finds():
    epochs = 40
    spec = OptimizerSpec("prodigy", weight_decay=0.3)
    assert (spec.learning_rate, spec.schedule) == (1.0, "cosine")
    optimizer = optimizers.build_optimizer(
        spec, epochs=epochs, steps_per_epoch=STEPS_PER_EPOCH
    )
    parameters = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), START)
    state = optimizer.init(parameters)
    step = jax.jit(lambda p, s: optimizer.update(gradient(p), s, p))
    for expected, weights in prodigy(spec, epochs):
        updates, state = step(parameters, state)
        parameters = optax.apply_updates(parameters, updates)
        # It grows by a factor a step, and float32's rounding with it.
        found = float(state.inner_state.estim_lr)
        assert found == pytest.approx(expected, rel=0.03)
        flat = np.concatenate([np.ravel(parameters[name]) for name in sorted(START)])
        np.testing.assert_allclose(flat, weights, rtol=0, atol=0.02)
    assert found > 1e5 * 1e-6
    for name in START:
        before, after = (np.abs(p[name] - MINIMUM[name]) for p in (START, parameters))
        assert after.mean() < 0.3 * before.mean()


def test_the_tolerance_tells_the_rules_apart():
    """No optimizer passes for another, so a name that builds another's fails above."""
    ends = {
        name: list(written_out(OptimizerSpec(name, 0.1, 0.3, schedule="step")))[-1][0]
        for name in REFERENCES
    }
    for left, right in itertools.combinations(ends, 2):
        for array in START:
            difference = np.abs(ends[left][array] - ends[right][array]).max()
            assert difference > 100 * TOLERANCE, (left, right, array)


def test_adafactor_factors_large_matrices():
    # Of (rows, columns) from 128 on, only a row and a column of second moments.
    optimizer = optimizers.build_optimizer(
        OptimizerSpec("adafactor"), epochs=6, steps_per_epoch=1
    )
    params = {"kernel": jnp.ones((128, 256))}
    largest = max(leaf.size for leaf in jax.tree.leaves(optimizer.init(params)))
    assert largest == 256
    # A gradient of rank one has exactly factored squares: the first step is its sign.
    g = jnp.outer(jnp.linspace(-2, 1, 128), jnp.linspace(0.5, 3, 256))
    updates, _ = optimizer.update({"kernel": g}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -1e-3 * jnp.sign(g), rtol=1e-4)


# --- Parameters to evaluate ---------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - {"schedule_free_adamw"}))
def test_other_optimizers_evaluate_what_they_train(name):
    optimizer = optimizers.build_optimizer(
        OptimizerSpec(name), epochs=2, steps_per_epoch=2
    )
    params = {"kernel": jnp.ones((2, 2))}
    assert optimizers.evaluation_params(optimizer.init(params), params) is params


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_a_moving_average_is_that_of_the_weights_after_every_step(name):
    decay = 0.9
    plain, averaged = (
        trained(OptimizerSpec(name, schedule="constant", ema=ema))
        for ema in (0.0, decay)
    )
    expected = jax.tree.map(lambda a: np.asarray(a, np.float32), START)
    for (weights, same), (others, evaluated) in zip(plain, averaged, strict=True):
        jax.tree.map(np.testing.assert_array_equal, weights, same)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6), others, weights
        )
        expected = jax.tree.map(
            lambda mean, new: decay * mean + (1 - decay) * new, expected, weights
        )
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5),
            evaluated,
            expected,
        )


def test_a_moving_average_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="ema of optimizer 'sgd' is 1"):
        OptimizerSpec("sgd", ema=1.0)
    with pytest.raises(InputError, match="it averages its weights itself"):
        OptimizerSpec("schedule_free_adamw", ema=0.9)
    assert OptimizerSpec("adamw", ema=0.99).label == "adamw-ema=0.99"


def test_a_schedule_free_state_is_found_inside_of_a_chain():
    optimizer = optax.chain(
        optax.clip(1.0), optax.chain(optax.contrib.schedule_free_sgd(0.5))
    )
    params = jnp.array([1.0, 2.0])
    state = optimizer.init(params)
    zs = []
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
        zs.append(state[1][0].z)
    # At a constant rate the average is the plain mean.
    np.testing.assert_allclose(
        optimizers.evaluation_params(state, params), np.mean(zs, axis=0), rtol=1e-5
    )
    assert np.abs(params - np.mean(zs, axis=0)).max() > 0.01


# --- Specs --------------------------------------------------------------------------


DEFAULTS = {
    "sgd": (0.01, 5e-4),
    "adam": (1e-3, 0.0),
    "adamw": (1e-3, 1e-4),
    "rmsprop": (1e-3, 0.0),
    "lamb": (1e-3, 0.0),
    "lion": (1e-4, 1e-3),
    "adafactor": (1e-3, 0.0),
    "muon": (0.02, 0.01),
    "schedule_free_adamw": (2.5e-3, 0.0),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_defaults_are_filled_in(name):
    learning_rate, weight_decay = DEFAULTS[name]
    spec = OptimizerSpec(name)
    assert (spec.learning_rate, spec.weight_decay) == (learning_rate, weight_decay)
    assert (spec.momentum, spec.nesterov) == (0.9, False)
    own = {"schedule_free_adamw": "warmup_constant"}
    assert (spec.schedule, spec.warmup_epochs) == (own.get(name, "step"), 0)
    assert spec == OptimizerSpec(name, learning_rate, weight_decay)
    assert hash(spec) == hash(OptimizerSpec(name, learning_rate, weight_decay))


def test_what_is_given_is_kept_even_when_zero():
    spec = OptimizerSpec("sgd", learning_rate=0.2, weight_decay=0.0)
    assert (spec.learning_rate, spec.weight_decay) == (0.2, 0.0)


def test_each_optimizer_of_a_config_has_its_own_schedule_unless_one_is_given():
    section = common.get_config().optimizer
    assert optimizer_spec(section, "lion").schedule == "step"
    averaging = optimizer_spec(section, "schedule_free_adamw")
    assert averaging == OptimizerSpec("schedule_free_adamw")
    section.schedule = "cosine"
    for name in REFERENCES:
        assert optimizer_spec(section, name).schedule == "cosine"


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - {"sgd"}))
def test_momentum_is_refused_where_it_would_change_nothing(name):
    for options in ({"momentum": 0.5}, {"nesterov": True}):
        with pytest.raises(InputError, match=f"'{name}' has no momentum .* of sgd"):
            OptimizerSpec(name, **options)
    assert OptimizerSpec(name, momentum=0.9, nesterov=False) == OptimizerSpec(name)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "field", ["learning_rate", "weight_decay", "momentum", "warmup_epochs"]
)
def test_numbers_without_a_meaning_are_refused(field, value):
    with pytest.raises(InputError, match=f"{field} of optimizer 'sgd' is {value}"):
        OptimizerSpec("sgd", **{field: value})


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="nesterov set and a momentum of 0"):
        OptimizerSpec("sgd", momentum=0.0, nesterov=True)


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        (OptimizerSpec("sgd"), "sgd"),
        (OptimizerSpec("adamw", 0.3), "adamw"),
        (
            OptimizerSpec("sgd", 0.3, 0.0, momentum=0.5),
            "sgd-weight_decay=0.0-momentum=0.5",
        ),
        (OptimizerSpec("sgd", nesterov=True), "sgd-nesterov=True"),
        (
            OptimizerSpec.create("adamw", weight_decay=0.01, decay_vectors=False),
            "adamw-weight_decay=0.01-decay_vectors=False",
        ),
        (
            OptimizerSpec("lion", schedule="cosine", warmup_epochs=3),
            "lion-schedule=cosine-warmup_epochs=3",
        ),
        (
            OptimizerSpec("schedule_free_adamw", schedule="warmup_constant"),
            "schedule_free_adamw",
        ),
    ],
)
def test_a_label_names_what_is_not_the_default_but_the_learning_rate(spec, label):
    assert spec.label == label


def test_options_of_every_optimizer():
    common = {"weight_decay", "schedule", "warmup_epochs", "ema"}
    for name in REFERENCES:
        options = optimizers.optimizer_options(name)
        own = {"momentum", "nesterov"} if name == "sgd" else set()
        own |= {"decay_vectors"} if name in WITH_DECAY_OF_VECTORS else set()
        assert set(options) == common | own
        assert OptimizerSpec.create(name, **options) == OptimizerSpec(name)
    with pytest.raises(
        InputError, match="option of adamw 'momentum'; expected one of weig"
    ):
        OptimizerSpec.create("adamw", momentum=0.9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamww", r"'adamww' \(did you mean 'adamw'\?\); .* sgd, adam"),
        ("Adam", r"'Adam' \(did you mean 'adam'\?\)"),
        ("xyz", r"'xyz'; .* sgd, adam"),
    ],
)
def test_an_unknown_optimizer_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(ValueError, match=message):
        OptimizerSpec(name)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"'linear'.* expected one of .*step.*cosine"):
        OptimizerSpec("sgd", schedule="linear")


def test_what_is_compiled_for_one_learning_rate_serves_all():
    def build(name="adamw", epochs=7, **options):
        spec = OptimizerSpec(name, **options)
        return optimizers.build_optimizer(spec, epochs=epochs, steps_per_epoch=3)

    assert build() is build()
    assert build(learning_rate=0.3) is build(learning_rate=0.5)
    assert build() is not build("adam")
    assert build() is not build(weight_decay=0.3)
    assert build() is not build(epochs=8)


def test_the_learning_rate_is_a_value_in_the_state():
    state = optimizers.build_optimizer(
        OptimizerSpec("sgd"), epochs=2, steps_per_epoch=2
    ).init(jnp.zeros(()))
    assert float(optimizers.peak_learning_rate(state)) == pytest.approx(0.01)
    other = optimizers.with_learning_rate(state, 0.25)
    assert float(optimizers.peak_learning_rate(other)) == 0.25
    assert jax.tree.structure(other) == jax.tree.structure(state)


# --- Optimizers of the user's own ---------------------------------------------------

MINE = """
import optax

def slow(learning_rate=0.25, *, beta=0.5, clip=None):
    return optax.sgd(learning_rate, momentum=beta)

def plain(rate, weight_decay=0.0):
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(rate))

def nothing():
    return optax.sgd(0.1)

def name(rate):
    return "sgd"

def demanding(rate, *, needed):
    return optax.sgd(rate)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_optimizers.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "my_optimizers.py"
    sys.modules.pop("my_optimizers", None)


def test_an_optimizer_of_ones_own_has_the_options_of_its_signature(mine):
    name = "my_optimizers:slow"
    assert optimizers.optimizer_options(name) == {
        "beta": 0.5,
        "clip": None,
        "schedule": "step",
        "warmup_epochs": 0,
        "ema": 0.0,
    }
    spec = OptimizerSpec.create(name, beta=0.7, schedule="cosine")
    assert (spec.learning_rate, spec.weight_decay) == (0.25, None)
    assert spec.label == "my_optimizers:slow-beta=0.7-schedule=cosine"
    assert spec.options == (("beta", 0.7),)
    assert spec == OptimizerSpec(name, options=(("beta", 0.7),), schedule="cosine")
    assert OptimizerSpec.create(name, beta=0.5, clip=None) == OptimizerSpec(name)
    assert OptimizerSpec("my_optimizers:plain").learning_rate == 1e-3


def test_an_optimizer_of_ones_own_trains_with_schedule_and_options(mine):
    own = OptimizerSpec.create("my_optimizers:slow", learning_rate=0.1, beta=0.7)
    ours = OptimizerSpec("sgd", 0.1, weight_decay=0.0, momentum=0.7)
    for left, right in zip(trained(own), trained(ours), strict=True):
        jax.tree.map(np.testing.assert_array_equal, left, right)


def test_what_is_compiled_for_one_s_own_serves_all_learning_rates(mine):
    def build(**options):
        spec = OptimizerSpec.create("my_optimizers:slow", **options)
        return optimizers.build_optimizer(spec, epochs=7, steps_per_epoch=3)

    assert build() is build(learning_rate=0.5)
    assert build() is not build(beta=0.7)


def test_one_s_own_code_is_part_of_the_spec(mine):
    before = OptimizerSpec("my_optimizers:slow")
    assert OptimizerSpec("sgd").code is None
    mine.write_text(MINE + "#")
    registry.reload_edited()
    assert OptimizerSpec("my_optimizers:slow") != before


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slow", {"betta": 0.1}, r"option of .*slow 'betta' \(did you mean 'beta'\?\)"),
        (
            "slow",
            {"momentum": 0.1},
            "option of .*slow 'momentum'; expected one of beta",
        ),
        ("slow", {"weight_decay": 0.1}, "option of .*slow 'weight_decay'"),
        ("sloww", {}, "did you mean 'slow'"),
        ("nothing", {}, "'my_optimizers:nothing' cannot be called with a schedule"),
        ("demanding", {}, "cannot be called .*'needed'"),
        ("name", {}, "gives a str, expected an optax.GradientTransformation"),
    ],
)
def test_what_is_no_optimizer_is_refused(mine, name, options, message):
    with pytest.raises(InputError, match=message):
        OptimizerSpec.create(f"my_optimizers:{name}", **options)


def test_fields_of_other_optimizers_are_none_of_one_s_own(mine):
    with pytest.raises(InputError, match=r"weight_decay .* among its options"):
        OptimizerSpec("my_optimizers:plain", weight_decay=0.1)
    with pytest.raises(InputError, match="has no momentum"):
        OptimizerSpec("my_optimizers:plain", momentum=0.1)
    assert OptimizerSpec.create("my_optimizers:plain", weight_decay=0.1).options


# --- Schedules ----------------------------------------------------------------------


def epoch_rates(epochs, *, steps_per_epoch=3, **fields):
    """(epochs, steps_per_epoch) learning rates of a peak of 0.5."""
    factor = optimizers.schedule_factor(
        OptimizerSpec("sgd", **fields), epochs=epochs, steps_per_epoch=steps_per_epoch
    )

    def rate(step):
        return 0.5 * factor(step)

    steps = jnp.arange(epochs * steps_per_epoch)
    rates = jnp.broadcast_to(jax.jit(jax.vmap(rate))(steps), steps.shape)
    np.testing.assert_allclose(rate(len(steps) - 1), rates[-1], atol=1e-6)
    return np.asarray(rates).reshape(epochs, steps_per_epoch)


# Epochs, and those at which the rate drops, computed by hand.
MILESTONES = {
    1000: (666, 833),
    300: (200, 250),
    7: (4, 5),
    5: (3, 4),
    4: (2, 3),
    3: (2, 2),
    2: (1, 1),
    1: (0, 0),
}


@pytest.mark.parametrize("epochs", MILESTONES)
def test_step_schedule_drops_at_the_official_epochs(epochs):
    first, second = MILESTONES[epochs]
    rates = epoch_rates(epochs)
    np.testing.assert_allclose(rates[:first], 0.5, rtol=1e-6)
    np.testing.assert_allclose(rates[first:second], 0.1, rtol=1e-6)
    np.testing.assert_allclose(rates[second:], 0.02, rtol=1e-6)


@pytest.mark.parametrize("epochs", [1, 2, 10, 300])
def test_cosine_schedule_changes_by_the_epoch(epochs):
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(epochs) / epochs)) / 2
    rates = epoch_rates(epochs, schedule="cosine")
    np.testing.assert_allclose(rates, np.tile(expected[:, None], 3), atol=1e-6)


@pytest.mark.parametrize("epochs", [1, 10, 300])
def test_the_smoothed_cosine_is_rdeds(epochs):
    # LambdaLR of validation/main.py: 0.5 (1 + cos(pi step / re_epochs / 2)).
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(epochs) / epochs / 2)) / 2
    rates = epoch_rates(epochs, schedule="smoothed_cosine")
    np.testing.assert_allclose(rates, np.tile(expected[:, None], 3), atol=1e-6)


@pytest.mark.parametrize(("epochs", "last"), [(300, 152), (1000, 502), (5, 4)])
def test_the_half_step_is_dcs(epochs, last):
    rates = epoch_rates(epochs, schedule="half_step")
    np.testing.assert_allclose(rates[:last], 0.5, rtol=1e-6)
    np.testing.assert_allclose(rates[last:], 0.05, rtol=1e-6)


def test_constant_schedule():
    np.testing.assert_array_equal(
        epoch_rates(9, schedule="constant"), np.full((9, 3), 0.5)
    )


@pytest.mark.parametrize(
    ("epochs", "warmup_epochs", "ramp"),
    [(1, 0, 1), (50, 0, 1), (51, 0, 2), (150, 0, 3), (150, 5, 5)],
)
def test_warmup_constant_warms_up_over_a_fiftieth(epochs, warmup_epochs, ramp):
    rates = epoch_rates(epochs, schedule="warmup_constant", warmup_epochs=warmup_epochs)
    expected = np.minimum(0.5 * np.arange(3 * epochs) / (3 * ramp), 0.5)
    np.testing.assert_allclose(rates.ravel(), expected, rtol=1e-6)


def test_warm_up_grows_by_the_step_from_zero_to_the_peak():
    rates = epoch_rates(6, schedule="constant", warmup_epochs=2)
    expected = [0, 0.5 / 6, 1.0 / 6, 1.5 / 6, 2 / 6, 2.5 / 6]
    np.testing.assert_allclose(rates.ravel()[:6], expected, rtol=1e-6)
    np.testing.assert_array_equal(rates[2:], np.full((4, 3), 0.5))


def test_the_cosine_runs_from_the_end_of_the_warm_up_to_that_of_the_training():
    rates = epoch_rates(10, schedule="cosine", warmup_epochs=2)
    np.testing.assert_allclose(rates[:2].ravel(), 0.5 * np.arange(6) / 6, rtol=1e-6)
    np.testing.assert_allclose(rates[2:], epoch_rates(8, schedule="cosine"), rtol=1e-6)


def test_warm_up_leaves_the_milestones_of_the_step_schedule():
    plain, warm = epoch_rates(12), epoch_rates(12, warmup_epochs=3)
    np.testing.assert_allclose(warm[:3].ravel(), 0.5 * np.arange(9) / 9, rtol=1e-6)
    np.testing.assert_array_equal(warm[3:], plain[3:])


@pytest.mark.parametrize("schedule", optimizers.SCHEDULES)
def test_a_warm_up_is_no_longer_than_the_training(schedule):
    spec = OptimizerSpec("adam", schedule=schedule, warmup_epochs=6)
    build = functools.partial(optimizers.build_optimizer, spec, steps_per_epoch=2)
    build(epochs=6)
    with pytest.raises(InputError, match="is 6, longer than the training of 5 epochs"):
        build(epochs=5)


def test_the_optimizer_follows_the_schedule():
    # Without momentum and decay an update is the rate times the gradient.
    spec = OptimizerSpec(
        "sgd", 0.5, 0.0, momentum=0.0, schedule="cosine", warmup_epochs=1
    )
    optimizer = optimizers.build_optimizer(spec, epochs=5, steps_per_epoch=3)
    state = initial(spec, optimizer, jnp.zeros(()))
    rates = []
    for _ in range(15):
        update, state = optimizer.update(jnp.ones(()), state, jnp.zeros(()))
        rates.append(-float(update))
    expected = epoch_rates(5, schedule="cosine", warmup_epochs=1).ravel()
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_a_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        OptimizerSpec("sgd").learning_rate = 1.0


def test_the_adam_of_muon_has_the_b2_of_its_readme():
    """Its rate is so small that gradients which follow from it hardly change."""
    spec = OptimizerSpec("muon", 1.0, 0.0, schedule="constant")
    optimizer = optimizers.build_optimizer(spec, epochs=1, steps_per_epoch=2)
    params, memory = {"bias": jnp.zeros(1)}, collections.defaultdict(float)
    state = initial(spec, optimizer, params)
    for step, slope in enumerate([1.0, 10.0]):
        updates, state = optimizer.update({"bias": jnp.full(1, slope)}, state, params)
        expected = adam_direction(step, slope, memory, b2=0.95, nesterov=True)
        np.testing.assert_allclose(updates["bias"], -0.015 * expected, rtol=1e-4)
