"""Directories that are named by users."""

import pathlib

import pytest

from gift_jax.runtime import paths
from gift_jax.runtime.errors import InputError


@pytest.mark.parametrize(
    "path",
    ["gs://bucket/run", pathlib.Path("gs://bucket/run"), "s3://a/b", "file:///a"],
)
def test_a_url_is_no_directory(path):
    with pytest.raises(InputError, match=r"--out is .*, a URL, expected a directory"):
        paths.local(path, "--out")


@pytest.mark.parametrize("path", ["run", "/a/b:c", "C:/run", "a:b/c", "./gs:/x"])
def test_any_other_name_is_one(path):
    assert paths.local(path, "--out") == pathlib.Path(path)


def test_the_home_directory_is_understood():
    assert paths.local("~/x", "--out") == pathlib.Path.home() / "x"
