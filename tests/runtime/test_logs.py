import logging

import pytest
from absl import logging as absl_logging

from gift_jax.runtime import logs


@pytest.fixture(autouse=True)
def as_before():
    ours, verbosity = logging.getLogger("gift_jax"), absl_logging.get_verbosity()
    before = (ours.handlers[:], ours.level, ours.propagate)
    yield
    ours.handlers[:], ours.level, ours.propagate = before
    absl_logging.set_verbosity(verbosity)


def said(capsys):
    logging.getLogger("gift_jax.train").info("an epoch")
    logging.getLogger("gift_jax.train").warning("a divergence")
    absl_logging.error("of Orbax's own")
    return [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_ours_is_shown_and_orbax_s_is_not(capsys):
    absl_logging.set_verbosity(absl_logging.INFO)
    logs.show()
    assert said(capsys) == ["an epoch", "a divergence"]


def test_a_process_among_many_shows_warnings_only(capsys):
    logs.show("WARNING")
    assert said(capsys) == ["a divergence"]
