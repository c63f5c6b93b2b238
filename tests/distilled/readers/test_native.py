"""gift_jax's own directory of distilled images."""

import numpy as np
import pytest

from gift_jax.data import info
from gift_jax.distilled import (
    DistilledDataset,
    Metadata,
    read_distilled,
    save_distilled,
)
from gift_jax.distilled.readers import native
from gift_jax.runtime.errors import InputError


@pytest.fixture
def saved(tmp_path):
    rng = np.random.default_rng(0)
    dataset = DistilledDataset(
        images=rng.uniform(size=(20, 8, 8, 1)).astype(np.float32),
        labels=np.repeat(np.arange(10), 2),
        soft_labels=rng.normal(size=(20, 10)).astype(np.float32),
        metadata=Metadata("digits", 10, "mine", "a test"),
        preprocess=info.DIGITS,
    )
    save_distilled(dataset, tmp_path / "own")
    return tmp_path / "own", dataset


@pytest.mark.parametrize("name", ["", "distilled.npz", "distilled.json"])
def test_the_directory_or_a_file_in_it_is_read_as_it_was_saved(saved, name):
    directory, dataset = saved
    assert native.matches(directory / name)
    read = read_distilled(directory / name)
    assert read.fingerprint == dataset.fingerprint
    assert read.metadata == dataset.metadata


def test_another_dataset_than_is_stored_is_refused(saved):
    with pytest.raises(InputError, match=r"made from 'digits'.*'cifar10'"):
        read_distilled(saved[0], dataset="cifar10")


@pytest.mark.parametrize("name", ["distilled.npz", "distilled.json"])
def test_half_a_directory_is_none(saved, name):
    directory, _ = saved
    (directory / name).unlink()
    assert not native.matches(directory)


def test_a_flipped_bit_is_another_dataset_or_an_error(saved):
    directory, dataset = saved
    path = directory / "distilled.npz"
    whole = bytearray(path.read_bytes())
    for place in np.linspace(100, len(whole) - 100, 40).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        try:
            read = read_distilled(directory)
        except InputError:
            continue
        # What no part of an array says, such as a time in the archive.
        assert read.fingerprint == dataset.fingerprint
