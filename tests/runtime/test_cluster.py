"""How hosts join a job; with several processes they are tested in `test_hosts`."""

import socket

import pytest

from gift_jax.runtime import cluster


def test_with_one_host_nobody_is_told_of_an_error():
    cluster.fail("returns with one host")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1", 2, None), "go together"),
        ((None, 2, 0), "go together"),
        (("localhost", 2, 0), "expected HOST:PORT"),
        (("localhost:1", 2, 2), "process_id is 2, expected 0 to 1 for 2 processes"),
        (("localhost:99999", 2, 0), "cannot listen on port 99999"),
    ],
)
def test_what_is_missing_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        cluster.join(*given)


def test_a_port_in_use_is_said_before_jax_crashes_of_it():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(
            ValueError, match=rf"cannot listen on port {port}: .*in use"
        ):
            cluster.join(f"localhost:{port}", 2, 0)
