"""What the command says, and what it lets through as a fault of the program."""

import jax
import pytest

from gift_jax.pipeline.products import WorkdirError
from gift_jax.runtime import errors
from gift_jax.teachers import TeacherError
from gift_jax.train.checkpoint import CheckpointError, CheckpointMismatchError
from gift_jax.train.teacher import DivergedError


@pytest.mark.parametrize(
    "kind",
    [
        errors.InputError,
        errors.UnknownNameError,
        errors.MissingPackageError,
        CheckpointError,
        CheckpointMismatchError,
        DivergedError,
        TeacherError,
        WorkdirError,
        FileNotFoundError,
        jax.errors.JaxRuntimeError,
    ],
)
def test_what_the_user_can_mend_is_expected(kind):
    assert issubclass(kind, errors.EXPECTED)


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, AssertionError])
def test_faults_of_the_program_keep_their_traceback(kind):
    assert not issubclass(kind, errors.EXPECTED)


def test_errors_of_arguments_are_value_errors_too():
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.MissingPackageError, ImportError)


def test_of_an_error_of_the_devices_the_first_line_is_shown():
    error = jax.errors.JaxRuntimeError("INTERNAL: out of memory\nstack\nstack")
    assert errors.message(error) == "INTERNAL: out of memory"
    assert errors.message(type(error)("")) == "JaxRuntimeError"
    assert errors.message(errors.InputError("a\nb")) == "a\nb"
    assert errors.message(MemoryError()) == "not enough memory (none is left)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("UNAVAILABLE: connection reset", "the devices of the hosts lost one another"),
        ("INTERNAL: NCCL error", "the devices of the hosts lost one another"),
        ("UNIMPLEMENTED: no such op", "UNIMPLEMENTED: no such op"),
        ("RESOURCE_EXHAUSTED: 17 GB", "the memory of the devices does not suffice"),
    ],
)
def test_on_several_hosts_what_all_of_them_meet_is_no_lost_host(
    error, said, monkeypatch
):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert errors.message(jax.errors.JaxRuntimeError(error)).startswith(said)
