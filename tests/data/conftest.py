"""Fixtures of the tests of `gift_jax.data`."""

import socket

import numpy as np
import pytest

from tests.data.samples import TinyPlain, TinyShapes, write_image


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    for builder in (TinyShapes, TinyPlain):
        builder(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def folders(tmp_path):
    """Two classes of grey 6x6 images: cat 0, 10, 20, dog 100 in train."""
    for i in range(3):
        write_image(tmp_path / "train" / "cat" / f"{i}.png", np.full((6, 6), 10 * i))
    write_image(tmp_path / "train" / "dog" / "deep" / "x.png", np.full((6, 6), 100))
    write_image(tmp_path / "val" / "dog" / "a.PNG", np.full((6, 6), 200))
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path
