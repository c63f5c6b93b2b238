"""What teachers images can be recovered from."""

import dataclasses

import pytest

from gift_jax.data import preprocess
from gift_jax.distill import Sre2l
from gift_jax.teachers import CallableTeacher, TeacherError
from tests.distill.recovery import networks


def make(teacher):
    Sre2l(1).make(networks.data(), teacher=teacher, seed=0)


def test_what_cannot_be_differentiated_is_refused_by_name():
    def answer(pixels):
        return pixels[:, 0, 0]

    theirs = CallableTeacher("theirs:build", answer, (8, 8, 3), 3)
    with pytest.raises(TeacherError, match=r"sre2l needs gradients .* theirs:build is"):
        make(theirs)
    with pytest.raises(TeacherError, match="no teacher"):
        make(None)


def test_whitened_images_are_refused():
    teacher = networks.teacher()
    whitening = object.__new__(preprocess.Whitening)
    with pytest.raises(TeacherError, match="teacher conv2 is fed whitened images"):
        make(dataclasses.replace(teacher, preprocess=whitening))


def test_no_batch_norm_is_refused():
    with pytest.raises(TeacherError, match="has none"):
        make(networks.teacher(norm="none"))
