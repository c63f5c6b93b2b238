"""How much memory there is."""

import os

from gift_jax.runtime import memory


def test_total_bytes_are_those_of_the_system(monkeypatch):
    pages = {"SC_PHYS_PAGES": 3, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert memory.total_bytes() == 12288
    monkeypatch.delattr(os, "sysconf")
    assert memory.total_bytes() is None
