"""Teachers that are Flax networks: inputs, identity, weights on disk."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from gift_jax import models
from gift_jax.data import preprocess
from gift_jax.models.variables import CheckpointMismatchError
from gift_jax.teachers import FlaxTeacher, flax_teacher

NORMALIZATION = preprocess.Normalization((0.5,), (0.25,))


def network(**options):
    return models.create_model(
        "conv1", num_classes=10, image_size=8, **{"width": 4, **options}
    )


@pytest.fixture(scope="module")
def variables():
    key = jax.random.key(0)
    return jax.device_get(
        models.init_variables(network(), key, image_size=8, channels=1)
    )


@pytest.fixture(scope="module")
def teacher(variables):
    return FlaxTeacher("mine", network(), variables, NORMALIZATION)


@pytest.mark.parametrize("count", [1, 5, 300])
def test_logits_are_the_networks_on_its_own_inputs(teacher, variables, count):
    rng = np.random.default_rng(count)
    pixels = rng.uniform(size=(count, 8, 8, 1)).astype(np.float32)
    expected = teacher.model.apply(variables, (pixels - 0.5) / 0.25, train=False)
    logits = teacher.logits(pixels)
    assert logits.shape == (count, 10)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_inputs_are_converted_where_the_students_preprocessing_differs():
    class Inputs(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            return images.reshape(len(images), -1)

    own = preprocess.Normalization((0.2,), (0.4,))
    teacher = FlaxTeacher("fake", Inputs(), {}, own)
    pixels = np.random.default_rng(0).uniform(size=(2, 4, 4, 1)).astype(np.float32)
    fed = teacher.apply({}, (pixels - 0.5) / 0.25, NORMALIZATION)
    np.testing.assert_allclose(fed, ((pixels - 0.2) / 0.4).reshape(2, -1), atol=1e-6)
    same = teacher.apply({}, pixels, preprocess.Normalization((0.2,), (0.4,)))
    np.testing.assert_array_equal(same, pixels.reshape(2, -1))


# --- Identity -----------------------------------------------------------------------


def test_names_devices_and_copies_do_not_change_the_fingerprint(teacher, variables):
    found = teacher.fingerprint
    assert len(found) == 16 and int(found, 16) >= 0
    for other in (
        dataclasses.replace(teacher, name="another"),
        dataclasses.replace(teacher, variables=jax.device_put(variables)),
        dataclasses.replace(teacher, model=network(axis_name="batch")),
        dataclasses.replace(
            teacher, preprocess=preprocess.Normalization((0.5,), (0.25,))
        ),
    ):
        assert other.fingerprint == found


def test_one_weight_changes_the_fingerprint(teacher, variables):
    leaves, structure = jax.tree.flatten(variables)
    for number, leaf in enumerate(leaves):
        changed = leaf.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        others = [*leaves[:number], changed, *leaves[number + 1 :]]
        other = jax.tree.unflatten(structure, others)
        found = dataclasses.replace(teacher, variables=other).fingerprint
        assert found != teacher.fingerprint


def test_network_and_preprocessing_change_the_fingerprint(teacher):
    eye = np.eye(64, dtype=np.float32)
    whitening = preprocess.Whitening(NORMALIZATION, np.zeros(64, "f4"), eye, eye)
    more = preprocess.Whitening(NORMALIZATION, np.zeros(64, "f4"), 2 * eye, eye / 2)
    others = [
        dataclasses.replace(teacher, preprocess=transform)
        for transform in (
            preprocess.Normalization((0.5,), (0.26,)),
            preprocess.Normalization((0.51,), (0.25,)),
            whitening,
            more,
        )
    ] + [
        dataclasses.replace(teacher, model=model)
        for model in (network(norm="instance"), network(dtype="bfloat16"))
    ]
    found = {other.fingerprint for other in [teacher, *others]}
    assert len(found) == 1 + len(others)


_NETWORK = """
import flax.linen as nn

def scaled(x):
    return {scale} * x

class Net(nn.Module):
    function: object = scaled

    def __call__(self, images, train):
        return self.function(images.reshape(len(images), -1))
"""


def test_the_code_of_a_network_of_the_users_own_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def fingerprint(module, scale):
        (tmp_path / f"{module}.py").write_text(_NETWORK.format(scale=scale))
        made = __import__(module).Net()
        assert made.apply({}, np.ones((1, 1, 1, 1)), train=False) == scale
        return FlaxTeacher("mine", made, {}, NORMALIZATION).fingerprint

    # Where functions lie in memory does not matter.
    assert fingerprint("net_one", 1) == fingerprint("net_two", 1)
    assert fingerprint("net_one", 1) != fingerprint("net_three", 3)


# --- Weights on disk ----------------------------------------------------------------


def test_storage_round_trip(tmp_path, variables, teacher):
    flax_teacher.save_teacher(tmp_path, variables)
    loaded = flax_teacher.load_teacher(tmp_path, network(), (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    found = dataclasses.replace(teacher, variables=loaded).fingerprint
    assert found == teacher.fingerprint


def test_the_weights_of_another_model_are_refused(tmp_path, variables):
    flax_teacher.save_teacher(tmp_path, variables)
    with pytest.raises(CheckpointMismatchError, match="do not fit this model"):
        flax_teacher.load_teacher(tmp_path, network(width=8), (8, 8, 1))


def test_shapes_are_those_of_the_variables(variables):
    shapes = flax_teacher.variable_shapes(network(), (8, 8, 1))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda x: x.shape, shapes)
    plain = flax_teacher.variable_shapes(network(norm="none"), (8, 8, 1))
    assert plain["batch_stats"] == {}
