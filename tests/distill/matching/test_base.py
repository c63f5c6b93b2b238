"""What DM and DC share: the draw of real images, the loop, and what is gone on from."""

import functools

import jax
import numpy as np
import pytest

from gift_jax import models
from gift_jax.distill import Dc, Dm, base
from gift_jax.distill.matching import base as matching
from gift_jax.distill.matching import dc, dm
from gift_jax.runtime.errors import InputError
from gift_jax.runtime.preemption import PreemptedError
from tests.distill.recovery import networks

small = functools.partial(Dm, 2, iterations=6, width=4, batch_size=3)


def test_real_images_are_of_their_class_and_differ():
    members = base.class_members(networks.data(), 2)
    drawn = small()._draw(members, 0, 5)
    assert drawn.shape == (3, 3)
    for of_class, chosen in zip(members, drawn, strict=True):
        assert len(set(chosen)) == 3 and set(chosen) <= set(of_class)
    assert (drawn != small()._draw(members, 0, 6)).any()
    assert small(batch_size=256)._draw(members, 0, 5).shape == (3, 4)


def test_the_network_is_the_official_one():
    model = Dc(1).network(networks.INFO)
    assert (model.depth, model.width, model.norm) == (3, 128, "instance")


@pytest.mark.parametrize(
    "kind",
    [small, pytest.param(functools.partial(Dc, 2, 3), marks=pytest.mark.slow)],
    ids=["dm", "dc"],
)
def test_a_stopped_matching_goes_on_exactly(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(dc, "_LOOPS", ((2, 2, 1),))
    monkeypatch.setattr(dm, "augment", lambda key, images: images)  # long to compile
    model = models.create_model(
        "conv1", num_classes=3, image_size=8, width=4, norm="instance"
    )
    monkeypatch.setattr(matching.Matching, "network", lambda self, info: model)
    make = functools.partial(kind().make, networks.data(), seed=1)
    calls = []

    def stop(done, total, **metrics):
        calls.append(done)
        if done == 4:
            raise PreemptedError

    whole = make()
    with pytest.raises(PreemptedError):
        make(on_progress=stop, directory=tmp_path)
    with pytest.raises(PreemptedError):  # where it was
        make(on_progress=stop, directory=tmp_path)
    assert calls == [0, 1, 2, 3, 4, 4]
    found = make(directory=tmp_path)
    np.testing.assert_array_equal(found.images, whole.images)
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.metadata.method == type(kind()).__name__.lower()
    assert (make(seed=2).images != whole.images).any()


def test_images_begin_as_real_ones_of_their_class(monkeypatch):
    monkeypatch.setattr(
        Dm, "make_step", lambda self, info: lambda state, *_: (state, 0)
    )
    data = networks.data()
    made = small(iterations=1).make(data, seed=0)
    pixels = np.rint(made.images * 255).astype(np.uint8)
    for image, label in zip(pixels, made.labels, strict=True):
        equal = (data.train.all_images() == image).all((1, 2, 3))
        assert data.train.labels[equal].tolist() == [label]


def test_an_ipc_that_a_class_does_not_have_is_refused():
    for refuse in (Dm(5).check, functools.partial(Dm(5).make, seed=0)):
        with pytest.raises(InputError, match="ipc is 5, but class 0 of made has 4"):
            refuse(networks.data())
    with pytest.raises(InputError, match="Dc: width is 0"):
        Dc(1, width=0)


@pytest.mark.slow
def test_networks_are_drawn_by_the_key():
    model = small().network(networks.INFO)
    one, same, other = (
        jax.tree.leaves(base.draw_network(model, jax.random.key(k), networks.INFO))[0]
        for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
