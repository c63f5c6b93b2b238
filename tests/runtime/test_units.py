"""Quantities with their units."""

import pytest

from gift_jax.runtime import units


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 B"), (999_999, "1 MB"), (2.5e12, "2.5 TB"), (3.2e16, "32000 TB")],
)
def test_readable_size(size, text):
    assert units.readable_size(int(size)) == text
