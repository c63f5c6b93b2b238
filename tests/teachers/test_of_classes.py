"""A teacher of which some outputs are asked for."""

import numpy as np

from gift_jax.teachers import CallableTeacher, TeacherOfClasses

TEACHER = CallableTeacher(
    "sums", lambda images: images.sum((1, 2, 3))[:, None] * np.arange(5), (2, 2, 1), 5
)


def test_its_logits_are_those_of_the_classes_in_their_order():
    images = np.random.default_rng(0).uniform(size=(3, 2, 2, 1)).astype(np.float32)
    found = TeacherOfClasses(TEACHER, (4, 0, 2)).logits(images)
    np.testing.assert_array_equal(found, TEACHER.logits(images)[:, [4, 0, 2]])


def test_its_fingerprint_tells_classes_and_their_order():
    fingerprints = {
        TeacherOfClasses(TEACHER, classes).fingerprint
        for classes in ((0, 1), (1, 0), (0, 1, 2))
    }
    assert len({*fingerprints, TEACHER.fingerprint}) == 4
    again = TeacherOfClasses(TEACHER, (0, 1))
    assert again.fingerprint in fingerprints
    assert again.name == "sums"
